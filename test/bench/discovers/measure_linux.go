package discovers

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// Command is the argument with which the calling program must call Serve: Measure
// starts the program again with it.
const Command = "discovers"

const (
	// machines is how many there are: at 2,000 DISCOVERs a second each asks every
	// 2 s, which is no more than firmware does.
	machines  = 4000
	serverNIC = "lan0"
	clientNIC = "nic0"
	ready     = "ready"
	// late is how long the last offers may take.
	late = 500 * time.Millisecond
)

// Measure sends rate DISCOVERs a second, from machines that all have a plan, for
// some seconds at a server on one core, and returns how many were sent, how many
// of them were answered, and the CPU time that the server took meanwhile.
func Measure(ctx context.Context, rate, seconds int) (sent, answered int, cpuSeconds float64, err error) {
	server, client := fmt.Sprintf("discovers-s-%d", os.Getpid()), fmt.Sprintf("discovers-c-%d", os.Getpid())
	defer removeNetwork(server, client)
	if err := makeNetwork(ctx, server, client); err != nil {
		return 0, 0, 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pid, stop, err := startServer(ctx, server)
	if err != nil {
		return 0, 0, 0, err
	}
	defer stop()
	conn, err := listen(client)
	if err != nil {
		return 0, 0, 0, err
	}
	defer conn.Close()
	before, err := cpuTime(pid)
	if err != nil {
		return 0, 0, 0, err
	}
	answers := newCounter(rate * seconds)
	go answers.count(conn)
	sent, err = generate(ctx, conn, rate, seconds)
	if err != nil {
		return sent, 0, 0, err
	}
	for deadline := time.Now().Add(late); answers.distinct.Load() < int64(sent) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	after, err := cpuTime(pid)
	return sent, int(answers.distinct.Load()), after - before, err
}

func makeNetwork(ctx context.Context, server, client string) error {
	for _, args := range []string{
		"netns add " + server,
		"netns add " + client,
		"-n " + server + " link add " + serverNIC + " type veth peer name " + clientNIC + " netns " + client,
		"-n " + server + " addr add 10.77.0.1/24 dev " + serverNIC,
		"-n " + server + " link set " + serverNIC + " up",
		"-n " + client + " link set " + clientNIC + " up promisc on",
	} {
		if out, err := exec.CommandContext(ctx, "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
	}
	return nil
}

func removeNetwork(names ...string) {
	for _, name := range names {
		_ = exec.Command("ip", "netns", "del", name).Run() // gone already, or never made
	}
}

// startServer starts this program as a server on one core, and waits for it.
func startServer(ctx context.Context, netns string) (pid int, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, nil, fmt.Errorf("finding this program: %w", err)
	}
	command := exec.CommandContext(ctx, "ip", "netns", "exec", netns, self, Command)
	command.Env = append(os.Environ(), "GOMAXPROCS=1")
	command.Stderr = os.Stderr
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 5 * time.Second
	out, err := command.StdoutPipe()
	if err != nil {
		return 0, nil, fmt.Errorf("starting a server: %w", err)
	}
	if err := command.Start(); err != nil {
		return 0, nil, fmt.Errorf("starting a server: %w", err)
	}
	stop = func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		_ = command.Wait() // killed
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == ready {
			return command.Process.Pid, stop, waitForSockets(ctx, netns)
		}
	}
	stop()
	return 0, nil, errors.New("the server did not start")
}

// waitForSockets waits until the server has opened its last socket.
func waitForSockets(ctx context.Context, netns string) error {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		out, err := exec.CommandContext(ctx, "ip", "netns", "exec", netns, "cat", "/proc/net/udp").Output()
		if err != nil {
			return fmt.Errorf("looking at the server's sockets: %w", err)
		}
		if strings.Contains(string(out), ":0FAB ") { // 4011
			return nil
		}
	}
	return errors.New("the server did not open its ports")
}

// listen opens a packet socket in the clients' namespace.
func listen(netns string) (conn *packet.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and ends with the goroutine
		var namespace *os.File
		if namespace, err = os.Open("/run/netns/" + netns); err != nil {
			return
		}
		defer namespace.Close()
		if err = unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		var nic *net.Interface
		if nic, err = net.InterfaceByName(clientNIC); err == nil {
			conn, err = packet.Listen(nic, packet.Raw, unix.ETH_P_IP, nil)
		}
	}()
	<-done
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("setting the receive buffer: %w", err)
	}
	err = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) // what is lost is seen
	})
	if err != nil {
		return nil, fmt.Errorf("setting the receive buffer: %w", err)
	}
	return conn, nil
}

// generate sends evenly, in steps of a millisecond. Each DISCOVER has the number
// of its sending as its transaction ID.
func generate(ctx context.Context, conn *packet.Conn, rate, seconds int) (sent int, err error) {
	frame := discover()
	to := &packet.Addr{HardwareAddr: frame[:6]}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); sent < rate*seconds; {
		select {
		case <-ctx.Done():
			return sent, ctx.Err() //nolint:wrapcheck // the caller's own
		case <-tick.C:
		}
		due := min(rate*seconds, int(time.Since(start).Seconds()*float64(rate)))
		for ; sent < due; sent++ {
			address(frame, sent)
			if _, err := conn.WriteTo(frame, to); err != nil {
				return sent, fmt.Errorf("sending a DISCOVER: %w", err)
			}
		}
	}
	return sent, nil
}

// counter counts offers, each transaction once.
type counter struct {
	seen     []bool
	distinct atomic.Int64
}

func newCounter(n int) *counter { return &counter{seen: make([]bool, n)} }

// count reads until conn is closed.
func (c *counter) count(conn *packet.Conn) {
	b := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFrom(b)
		if err != nil {
			return
		}
		if n < 42+240 || binary.BigEndian.Uint16(b[36:]) != 68 || b[42] != 2 {
			continue
		}
		xid := binary.BigEndian.Uint32(b[46:])
		offered := strings.Contains(string(b[42:n]), "/httpboot/t/")
		if offered && int(xid) < len(c.seen) && !c.seen[xid] {
			c.seen[xid] = true
			c.distinct.Add(1)
		}
	}
}

// hardware is the MAC address of a machine.
func hardware(machine int) []byte {
	return binary.BigEndian.AppendUint32([]byte{0x52, 0x54}, uint32(machine))
}

// The places of what differs between DISCOVERs: after the headers of Ethernet, IP
// and UDP (42 bytes) the transaction ID and the hardware address.
const (
	atSource = 6
	atXID    = 42 + 4
	atChaddr = 42 + 28
)

func address(frame []byte, number int) {
	copy(frame[atSource:], hardware(number%machines))
	copy(frame[atChaddr:], hardware(number%machines))
	binary.BigEndian.PutUint32(frame[atXID:], uint32(number))
}

// discover is the frame that UEFI firmware broadcasts for HTTP Boot. It has no
// UDP checksum, which is allowed.
func discover() []byte {
	class := "HTTPClient:Arch:00016:UNDI:003001"
	dhcp := make([]byte, 236)
	copy(dhcp, []byte{1, 1, 6})
	dhcp[10] = 0x80
	dhcp = append(dhcp, 99, 130, 83, 99, 53, 1, 1, 93, 2, 0, 16, 60, byte(len(class)))
	dhcp = append(dhcp, class...)
	dhcp = append(dhcp, 55, 8, 1, 2, 3, 4, 6, 43, 66, 67, 255)
	b := []byte{255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 8, 0}
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255}
	binary.BigEndian.PutUint16(ip[2:], uint16(28+len(dhcp)))
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum>>16+sum&0xffff))
	b = append(b, ip...)
	b = append(b, 0, 68, 0, 67)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(dhcp)))
	return append(append(b, 0, 0), dhcp...)
}

// cpuTime is what a process has used, in seconds (proc(5), stat: utime, stime).
func cpuTime(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("reading the server's CPU time: %w", err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var user, system int64
	if len(fields) < 13 {
		return 0, errors.New("reading the server's CPU time: too few fields")
	}
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		return 0, fmt.Errorf("reading the server's CPU time: %w", err)
	}
	const ticks = 100 // USER_HZ on all Linux architectures that matter
	return float64(user+system) / ticks, nil
}
