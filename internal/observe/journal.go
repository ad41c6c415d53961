package observe

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	journalName = "reports.journal"
	lockName    = "reports.lock"
	// maxLine bounds one record: a report is a few hundred bytes.
	maxLine = 16 << 10
	// maxRecords bounds what a journal may bring into memory at start.
	maxRecords = 1 << 20
	// compactAt is the size in bytes under which the journal is never rewritten.
	compactAt = 1 << 20
)

// record is one line of the journal: the whole pending report of an object, or
// none once it is written. The last line of an object counts.
type record struct {
	Ref    boot.Ref `json:"ref"`
	Report *report  `json:"report,omitempty"`
}

// journal keeps pending reports on disk. A record is in the hands of the kernel
// when flush returns, so that it outlives the process; sync makes it outlive
// the machine. It stays smaller than four times what is pending, or 1 MiB.
//
// Adding records needs no I/O and keeps their order; flush writes what all
// callers have added.
type journal struct {
	path string
	lock *os.File
	log  logr.Logger

	mu    sync.Mutex
	lines map[string][]byte // the last record of each object that is pending
	bytes int64             // of lines
	buf   []byte            // added and not yet written

	io     sync.Mutex // held while the file is written; taken before mu
	file   *os.File
	size   int64
	unsafe bool // written and not yet synced
	broken bool // the file may end in a partial line
	closed bool
	// retryAt bounds how often a broken journal is written anew.
	retryAt time.Time
}

var errJournalClosed = errors.New("journal is closed")

// openJournal reads the journal in dir and takes it for this process alone. The
// records it returns are the last of each object. Lines that are damaged are
// logged and left out.
func openJournal(dir string, log logr.Logger) (*journal, []record, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("creating journal directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("opening journal lock: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("locking journal %s: another process uses this directory; give every replica its own: %w", dir, err), lock.Close())
	}
	j := &journal{path: filepath.Join(dir, journalName), lock: lock, log: log, lines: map[string][]byte{}}
	records, err := j.load()
	if err == nil {
		err = j.rewrite()
	}
	if err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	return j, records, nil
}

// load reads the file into lines.
func (j *journal) load() ([]record, error) {
	f, err := os.Open(j.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening journal: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	latest := map[string]record{}
	damaged, dropped := 0, 0
	err = eachLine(f, func(line []byte) {
		r, err := decodeRecord(line)
		switch {
		case err != nil:
			damaged++
		case r.Report == nil:
			delete(latest, r.Ref.UID)
		case len(latest) >= maxRecords:
			dropped++
		default:
			latest[r.Ref.UID] = r
		}
	})
	if err != nil {
		return nil, fmt.Errorf("reading journal: %w", err)
	}
	if damaged+dropped > 0 {
		j.log.Info("skipped journal lines", "path", j.path, "damaged", damaged, "overLimit", dropped)
	}
	records := make([]record, 0, len(latest))
	for uid, r := range latest {
		records = append(records, r)
		line, err := encodeRecord(r)
		if err != nil {
			return nil, err
		}
		j.lines[uid] = line
		j.bytes += int64(len(line))
	}
	return records, nil
}

// eachLine calls fn with every line of r, without its end. What is longer than
// maxLine, or has no end, is passed on cut, and no longer matches its checksum.
func eachLine(r io.Reader, fn func([]byte)) error {
	br := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := br.ReadSlice('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			fn(bytes.TrimSuffix(line, []byte("\n")))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// encodeRecord returns a line: the CRC-32 of the JSON in hexadecimal, a space,
// the JSON.
func encodeRecord(r record) ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding journal record: %w", err)
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.ChecksumIEEE(b), b), nil
}

func decodeRecord(line []byte) (record, error) {
	var r record
	sum, body, ok := bytes.Cut(line, []byte(" "))
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if !ok || err != nil || uint32(want) != crc32.ChecksumIEEE(body) {
		return r, errors.New("checksum does not match")
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("decoding journal record: %w", err)
	}
	if r.Ref.UID == "" || newConfig(r.Ref.Kind) == nil {
		return r, errors.New("record names no object that can be written")
	}
	return r, nil
}

// put adds the pending report of an object; done adds that nothing is pending.
func (j *journal) put(ref boot.Ref, pending report) {
	line, err := encodeRecord(record{Ref: ref, Report: &pending})
	if err != nil { // no type in a report can fail to encode
		j.log.Error(err, "kept a report in memory only", "object", ref.String())
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.bytes += int64(len(line)) - int64(len(j.lines[ref.UID]))
	j.lines[ref.UID] = line
	j.buf = append(j.buf, line...)
}

func (j *journal) done(ref boot.Ref) {
	j.mu.Lock()
	defer j.mu.Unlock()
	old, ok := j.lines[ref.UID]
	if !ok {
		return
	}
	j.bytes -= int64(len(old))
	delete(j.lines, ref.UID)
	if line, err := encodeRecord(record{Ref: ref}); err == nil {
		j.buf = append(j.buf, line...)
	}
}

// flush hands everything that was added to the kernel. After an error the next
// flush writes the whole journal anew.
func (j *journal) flush() error {
	j.io.Lock()
	defer j.io.Unlock()
	if j.closed {
		return errJournalClosed
	}
	j.mu.Lock()
	buf := j.buf
	j.buf = nil
	compact := j.broken || (j.size+int64(len(buf)) > compactAt && j.size+int64(len(buf)) > 4*j.bytes)
	nothing := len(j.lines) == 0
	j.mu.Unlock()
	switch {
	case len(buf) == 0 && !j.broken:
		return nil
	case j.broken && time.Now().Before(j.retryAt):
		return errors.New("journal is broken: reports are kept in memory only")
	case compact:
		return j.rewriteLocked()
	case nothing:
		return j.truncate()
	}
	n, err := j.file.Write(buf)
	j.size += int64(n)
	j.unsafe = true
	if err != nil {
		j.broken = true
		return fmt.Errorf("writing journal: %w", err)
	}
	return nil
}

// truncate empties a journal of which nothing is pending.
func (j *journal) truncate() error {
	if err := j.file.Truncate(0); err != nil {
		j.broken = true
		return fmt.Errorf("truncating journal: %w", err)
	}
	j.size, j.unsafe = 0, true
	return nil
}

// sync makes what was flushed survive a crash of the machine. It does not hold the
// lock meanwhile: who serves flushes, and must not wait for a slow disk.
func (j *journal) sync() error {
	j.io.Lock()
	file, due := j.file, j.unsafe && !j.closed
	j.unsafe = j.unsafe && !due
	j.io.Unlock()
	if !due {
		return nil
	}
	err := file.Sync()
	if err == nil || errors.Is(err, os.ErrClosed) { // closed: another file that is durable took its place
		return nil
	}
	j.io.Lock()
	defer j.io.Unlock()
	j.broken, j.unsafe = true, true
	return fmt.Errorf("syncing journal: %w", err)
}

// rewrite replaces the file by one that holds only what is pending.
func (j *journal) rewrite() error {
	j.io.Lock()
	defer j.io.Unlock()
	return j.rewriteLocked()
}

func (j *journal) rewriteLocked() error {
	j.mu.Lock()
	all := make([]byte, 0, j.bytes)
	for _, line := range j.lines {
		all = append(all, line...)
	}
	j.buf = nil
	j.mu.Unlock()
	j.broken, j.retryAt = true, time.Now().Add(time.Second)
	f, err := replaceFile(j.path, all)
	if err != nil {
		return fmt.Errorf("rewriting journal: %w", err)
	}
	if j.file != nil {
		_ = j.file.Close() // its content is in f
	}
	j.file, j.size, j.broken, j.unsafe = f, int64(len(all)), false, false
	j.retryAt = time.Time{}
	return nil
}

// replaceFile writes a new file, makes it durable, renames it to path and
// leaves it open for appending.
func replaceFile(path string, content []byte) (*os.File, error) {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// pending is how many objects have something to be written.
func (j *journal) pending() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.lines)
}

// close writes what is left and gives the directory free.
func (j *journal) close() error {
	err := errors.Join(j.flush(), j.sync())
	j.io.Lock()
	defer j.io.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	return errors.Join(err, j.file.Close(), j.lock.Close())
}
