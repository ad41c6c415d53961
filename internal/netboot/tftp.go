package netboot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pin/tftp/v3"
	"golang.org/x/time/rate"
)

const (
	portTFTP = 69
	// maxBlock is the largest block that fits an Ethernet frame: 1500 bytes
	// without the headers of IP, UDP and TFTP (RFC 2348).
	maxBlock = 1468
	// A block is sent five times, this far apart, before a client counts as gone.
	resendAfter  = 2 * time.Second
	blockRetries = 4
	// transferTimeout ends transfers to clients that are slow on purpose.
	transferTimeout = 15 * time.Minute
	// How many transfers there may be at once, in all and to one client.
	maxTransfers, maxPerClient = 256, 8
)

// Errors that TFTP clients are told.
var (
	errNoSuchFile = errors.New("no such file")
	errReadOnly   = errors.New("this server is read-only")
	errBusy       = errors.New("too many transfers at once")
	errStopped    = errors.New("the transfer was ended by the server")
)

// The results that transfers are counted by.
const (
	resultComplete = "complete"
	resultFailed   = "failed"
	// resultAborted: the client said so before the first block. Firmware asks for
	// a file's size like that.
	resultAborted  = "aborted"
	resultNotFound = "not-found"
	resultBusy     = "busy"
	resultReadOnly = "read-only"
	// resultRate: the client asks too often.
	resultRate = "rate"
)

// files serves one segment's TFTP clients.
type files struct {
	server *Server
	base   string
	ctx    context.Context //nolint:containedctx // of Run; a handler of the library's gets none
	slots  *slots
}

// serveTFTP answers requests that come to conn until ctx ends.
func (s *Server) serveTFTP(ctx context.Context, conn *net.UDPConn, at segment) error {
	f := &files{server: s, base: at.base, ctx: ctx, slots: s.slots}
	server := tftp.NewServer(f.read, f.write)
	server.SetBlockSize(min(maxBlock, at.mtu-ipHeader-udpHeader-4))
	// The library's own look at the interface's MTU, at each request, fails now
	// and then, and would leave 512 bytes.
	server.SetBlockSizeNegotiation(false)
	server.SetTimeout(s.resendAfter)
	server.SetRetries(blockRetries)
	server.SetBackoff(func(int) time.Duration { return 0 })
	stop := context.AfterFunc(ctx, server.Shutdown)
	defer stop()
	if err := server.Serve(conn); err != nil {
		return fmt.Errorf("serving TFTP on %s: %w", at.name, err)
	}
	return nil
}

// read answers a read request. Its errors are sent to the client.
func (f *files) read(name string, to io.ReaderFrom) error {
	m, client := f.server.metrics, clientOf(to)
	if !f.server.allowFiles(client) {
		m.transfers.WithLabelValues("other", resultRate).Inc()
		return errBusy
	}
	name = canonicalName(name)
	content, size, err := f.open(name)
	if err != nil {
		m.transfers.WithLabelValues("other", resultNotFound).Inc()
		return err
	}
	defer content.Close()
	if !f.slots.take(client) {
		m.transfers.WithLabelValues(name, resultBusy).Inc()
		return errBusy
	}
	defer f.slots.release(client)
	m.active.Inc()
	defer m.active.Dec()
	if t, ok := to.(tftp.OutgoingTransfer); ok {
		t.SetSize(size)
	}
	ctx, cancel := context.WithTimeout(f.ctx, transferTimeout)
	defer cancel()
	n, err := to.ReadFrom(&reader{ctx: ctx, from: io.LimitReader(content, size)})
	m.bytes.Add(float64(n))
	switch {
	case err != nil && n == 0 && strings.HasPrefix(err.Error(), "sending block 0: code="):
		m.transfers.WithLabelValues(name, resultAborted).Inc()
		return errStopped // nobody listens any more
	case err != nil:
		m.transfers.WithLabelValues(name, resultFailed).Inc()
		f.log("A TFTP transfer failed", name, client, "bytes", n, "reason", text([]byte(err.Error())))
		return errStopped
	}
	m.transfers.WithLabelValues(name, resultComplete).Inc()
	f.log("Served a file by TFTP", name, client, "bytes", n)
	return nil
}

// allowFiles says whether this client may ask for one more file now.
func (s *Server) allowFiles(client netip.Addr) bool {
	limiter, _ := s.perPeer.get(client, func() *rate.Limiter { return rate.NewLimiter(filesPerSecond, filesBurst) })
	return limiter.AllowN(s.options.Now(), 1)
}

func (f *files) log(message, name string, client netip.Addr, more ...any) {
	if f.server.logging.Allow() {
		f.server.options.Logger.Info(message, append([]any{"file", name, "client", client}, more...)...)
	}
}

func (f *files) write(string, io.WriterTo) error {
	f.server.metrics.transfers.WithLabelValues("other", resultReadOnly).Inc()
	return errReadOnly
}

// open opens one of the files that are listed. The name is only ever looked up,
// never made part of a path.
func (f *files) open(name string) (io.ReadCloser, int64, error) {
	p, ok := f.server.catalog.Load().files[name]
	if !ok {
		return f.generated(name)
	}
	file, err := os.Open(p.Path)
	if errors.Is(err, os.ErrNotExist) { // replaced since we looked
		f.server.rescan()
		if p, ok = f.server.catalog.Load().files[name]; ok {
			file, err = os.Open(p.Path)
		}
	}
	if err != nil {
		f.log("A network boot program cannot be opened", name, netip.Addr{}, "reason", err.Error())
		return nil, 0, errNoSuchFile
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxProgram {
		_ = file.Close() // it was only read
		return nil, 0, errNoSuchFile
	}
	return file, info.Size(), nil
}

// generated is the autoexec.ipxe that is served where there is no other: what
// iPXE would do without one, which asks for this machine's own URL, and where
// nobody offers one, the script for everybody.
func (f *files) generated(name string) (io.ReadCloser, int64, error) {
	for _, folder := range folders {
		if name == folder+autoexec {
			script := "#!ipxe\nautoboot || chain " + f.base + "/boot.ipxe || exit 1\n"
			return io.NopCloser(strings.NewReader(script)), int64(len(script)), nil
		}
	}
	return nil, 0, errNoSuchFile
}

// canonicalName is how the catalog spells a name: firmware and shims put slashes
// of both kinds before it, and sometimes two.
func canonicalName(name string) string {
	name = strings.ReplaceAll(name, `\`, "/")
	for strings.Contains(name, "//") {
		name = strings.ReplaceAll(name, "//", "/")
	}
	return strings.TrimPrefix(name, "/")
}

func clientOf(to any) netip.Addr {
	t, ok := to.(tftp.OutgoingTransfer)
	if !ok {
		return netip.Addr{}
	}
	a := t.RemoteAddr()
	return a.AddrPort().Addr().Unmap()
}

// reader ends a transfer when its context does.
type reader struct {
	ctx  context.Context //nolint:containedctx // of one transfer
	from io.Reader
}

// Read implements io.Reader.
func (r *reader) Read(b []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, errStopped
	}
	return r.from.Read(b) //nolint:wrapcheck // a reader's errors are its source's
}

// slots bounds transfers, in all and for each client.
type slots struct {
	mu      sync.Mutex
	all     int
	clients map[netip.Addr]int
}

func newSlots() *slots { return &slots{clients: make(map[netip.Addr]int)} }

func (s *slots) take(client netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= maxTransfers || s.clients[client] >= maxPerClient {
		return false
	}
	s.all++
	s.clients[client]++
	return true
}

func (s *slots) release(client netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.clients[client]--; s.clients[client] == 0 {
		delete(s.clients, client)
	}
}
