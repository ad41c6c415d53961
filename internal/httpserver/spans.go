package httpserver

import "slices"

// maxSpans bounds what is remembered of a client that asks for scattered
// ranges; its delivery then stays incomplete.
const maxSpans = 64

// spans is a set of byte ranges: sorted, apart from each other.
type spans struct {
	list []span
}

// span is the bytes from start up to but not including end.
type span struct{ start, end int64 }

// add unites the set with a range.
func (s *spans) add(start, end int64) {
	if start >= end {
		return
	}
	// The first span that touches the new one, and the first behind it.
	i := slices.IndexFunc(s.list, func(t span) bool { return t.end >= start })
	if i < 0 {
		i = len(s.list)
	}
	j := i
	for j < len(s.list) && s.list[j].start <= end {
		start, end = min(start, s.list[j].start), max(end, s.list[j].end)
		j++
	}
	if i == j && len(s.list) >= maxSpans {
		return
	}
	s.list = slices.Replace(s.list, i, j, span{start, end})
}

// covers says whether the set holds every byte of a blob of this size.
func (s *spans) covers(size int64) bool {
	return size == 0 || len(s.list) == 1 && s.list[0].start <= 0 && s.list[0].end >= size
}

// total is how many bytes the set holds.
func (s *spans) total() int64 {
	var n int64
	for _, t := range s.list {
		n += t.end - t.start
	}
	return n
}
