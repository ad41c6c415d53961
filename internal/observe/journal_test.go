package observe

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

func refNumber(i int) boot.Ref {
	return boot.Ref{Kind: v1alpha1.KindHTTPBootConfig, Namespace: "default", Name: fmt.Sprint("m", i), UID: fmt.Sprint("uid", i)}
}

func reportNumber(i int) report {
	return report{Stages: []v1alpha1.BootStage{stageOf(saw(int64(i), boot.StageUKI, true, t0))}}
}

func mustOpen(t *testing.T, dir string) (*journal, map[string]record) {
	t.Helper()
	j, records, err := openJournal(dir, logr.Discard())
	require.NoError(t, err)
	t.Cleanup(func() { _ = j.close() })
	byUID := map[string]record{}
	for _, r := range records {
		byUID[r.Ref.UID] = r
	}
	return j, byUID
}

// crash gives the directory free as a killed process does: nothing is written.
func crash(t *testing.T, j *journal) {
	t.Helper()
	j.closed = true
	require.NoError(t, j.lock.Close())
	require.NoError(t, j.file.Close())
}

func TestJournalGivesBackWhatWasPendingWhenItsProcessDied(t *testing.T) {
	dir := t.TempDir()
	j, records := mustOpen(t, dir)
	require.Empty(t, records)
	j.put(refNumber(1), reportNumber(1))
	j.put(refNumber(2), reportNumber(2))
	j.put(refNumber(1), reportNumber(11))
	j.done(refNumber(2))
	require.NoError(t, j.flush())
	crash(t, j)
	j, records = mustOpen(t, dir)
	require.Len(t, records, 1)
	require.EqualValues(t, 11, records["uid1"].Report.Stages[0].Attempt, "the last record counts")
	require.Equal(t, 1, j.pending())
}

func TestJournalIsEmptyWhenNothingIsPending(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, dir)
	for i := range 100 {
		j.put(refNumber(i), reportNumber(i))
	}
	require.NoError(t, j.flush())
	for i := range 100 {
		j.done(refNumber(i))
	}
	require.NoError(t, j.flush())
	info, err := os.Stat(filepath.Join(dir, journalName))
	require.NoError(t, err)
	require.Zero(t, info.Size())
	j.put(refNumber(5), reportNumber(5))
	require.NoError(t, j.flush())
	crash(t, j)
	_, records := mustOpen(t, dir)
	require.Len(t, records, 1)
}

func TestJournalSkipsDamage(t *testing.T) {
	good, err := encodeRecord(record{Ref: refNumber(1), Report: ptr(reportNumber(1))})
	require.NoError(t, err)
	other, err := encodeRecord(record{Ref: refNumber(2), Report: ptr(reportNumber(2))})
	require.NoError(t, err)
	unknown := refNumber(3)
	unknown.Kind = "Node"
	foreign, err := encodeRecord(record{Ref: unknown, Report: ptr(reportNumber(3))})
	require.NoError(t, err)
	flipped := bytes.Replace(other, []byte("default"), []byte("defaulT"), 1)
	tests := map[string]struct {
		content []byte
		want    int
	}{
		"nothing":                 {nil, 0},
		"cut last line":           {append(bytes.Clone(good), other[:len(other)/2]...), 1},
		"cut line, then more":     {bytes.Join([][]byte{other[:30], good}, []byte("\n")), 1},
		"a flipped bit":           {append(bytes.Clone(flipped), good...), 1},
		"binary":                  {append([]byte("\x00\xff\x00\n"), good...), 1},
		"a very long line":        {append([]byte(strings.Repeat("a", 5*maxLine)+"\n"), good...), 1},
		"very long without end":   {append(bytes.Clone(good), strings.Repeat("a", 5*maxLine)...), 1},
		"an unknown kind":         {append(foreign, good...), 1},
		"whole lines":             {append(bytes.Clone(good), other...), 2},
		"JSON that is no record":  {append([]byte("a3 []\n"), good...), 1},
		"a checksum and no more":  {append([]byte("00000000 \n"), good...), 1},
		"a line without checksum": {append([]byte("{}\n"), good...), 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, journalName), tt.content, 0o600))
			j, records := mustOpen(t, dir)
			require.Len(t, records, tt.want)
			j.put(refNumber(9), reportNumber(9))
			require.NoError(t, j.flush())
			crash(t, j)
			_, records = mustOpen(t, dir)
			require.Len(t, records, tt.want+1, "what follows damage is kept")
		})
	}
}

func TestJournalSaysWhatItSkipped(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, journalName), []byte("x\ny\n"), 0o600))
	var lines []string
	j, _, err := openJournal(dir, funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{}))
	require.NoError(t, err)
	defer j.close() //nolint:errcheck // the test is over
	require.Len(t, lines, 1)
	require.Contains(t, lines[0], `"damaged"=2`)
}

func TestJournalBelongsToOneProcess(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, dir)
	_, _, err := openJournal(dir, logr.Discard())
	require.ErrorContains(t, err, "another process uses this directory")
	require.NoError(t, j.close())
	mustOpen(t, dir)
}

// An object that changes for ever while another stays pending.
func TestJournalStaysSmall(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, dir)
	j.put(refNumber(0), reportNumber(0))
	for i := range 20_000 {
		j.put(refNumber(1), reportNumber(i))
		require.NoError(t, j.flush())
	}
	info, err := os.Stat(filepath.Join(dir, journalName))
	require.NoError(t, err)
	require.LessOrEqual(t, info.Size(), int64(compactAt))
	crash(t, j)
	_, records := mustOpen(t, dir)
	require.Len(t, records, 2)
	require.EqualValues(t, 19_999, records["uid1"].Report.Stages[0].Attempt)
}

func TestJournalRecoversFromAFailedWrite(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, dir)
	require.NoError(t, j.file.Close()) // every write fails from here on
	j.put(refNumber(1), reportNumber(1))
	require.Error(t, j.flush())
	j.put(refNumber(2), reportNumber(2))
	require.NoError(t, j.flush(), "the whole journal is written anew")
	crash(t, j)
	_, records := mustOpen(t, dir)
	require.Len(t, records, 2)
}

func TestJournalIsSafeForManyWriters(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, dir)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 200 {
				j.put(refNumber(w), reportNumber(i))
				_ = j.flush()
			}
			if w%2 == 0 {
				j.done(refNumber(w))
				_ = j.flush()
			}
		})
	}
	wg.Wait()
	require.NoError(t, j.sync())
	crash(t, j)
	_, records := mustOpen(t, dir)
	require.Len(t, records, 4)
	for _, r := range records {
		require.EqualValues(t, 199, r.Report.Stages[0].Attempt)
	}
}

func TestAClosedJournalWritesNothing(t *testing.T) {
	j, _ := mustOpen(t, t.TempDir())
	require.NoError(t, j.close())
	j.put(refNumber(1), reportNumber(1))
	require.ErrorIs(t, j.flush(), errJournalClosed)
	require.NoError(t, j.sync())
	require.NoError(t, j.close())
}

func FuzzDecodeRecord(f *testing.F) {
	line, err := encodeRecord(record{Ref: refNumber(1), Report: ptr(reportNumber(1))})
	require.NoError(f, err)
	f.Add(bytes.TrimSpace(line))
	f.Add([]byte("00000000 {}"))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := decodeRecord(line)
		if err == nil && newConfig(r.Ref.Kind) == nil {
			t.Fatalf("accepted a record of no kind: %q", line)
		}
	})
}

func ptr[T any](v T) *T { return &v }
