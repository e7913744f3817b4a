package ivshmem

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"hvnet/hv"
)

// A host that ends leaves its guests behind: QEMU goes on with the window and the
// eventfds. The next host on the same socket takes them over. Where they are it finds
// in a note beside the socket, and the descriptors in the QEMU process, which has
// them all. To the shim it shows itself by another life number in the window.

// A note says which QEMU a host had, and which of QEMU's descriptors are whose. The
// numbers are the kernel's, so a note that is out of date fits nothing.
type note struct {
	PID    int      // of QEMU
	Start  uint64   // its start time, as in /proc/PID/stat
	Window uint64   // inode
	Door   string   // eventfd-id of the host's doorbell
	Bells  []string // and of the guest's vectors
}

// notePath is where the note about the guest of a socket is.
func notePath(socket string) string { return socket + ".guest" }

// writeNote leaves a note about a guest that has just attached.
func writeNote(path string, g *guest, conn *net.UnixConn) error {
	cred, err := peerOf(conn)
	if err != nil {
		return err
	}
	n := note{PID: int(cred.Pid), Window: g.window.inode}
	if n.Start, err = startTime(n.PID); err != nil {
		return err
	}
	if n.Door, err = eventID("self", g.door.fd); err != nil {
		return err
	}
	for i := range g.bells {
		id, err := eventID("self", g.bells[i].fd)
		if err != nil {
			return err
		}
		n.Bells = append(n.Bells, id)
	}
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o600)
}

// peerOf returns who is at the other end of a socket.
func peerOf(c *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var got error
	err = raw.Control(func(fd uintptr) { cred, got = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cred, errors.Join(err, got)
}

// startTime returns when a process began, in ticks since boot.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// Behind the name, which may hold anything, the start is the 20th field.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// eventID returns the kernel's number of an eventfd of a process, "" for another file.
func eventID(pid string, fd int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%s/fdinfo/%d", pid, fd))
	if err != nil {
		return "", err
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if id, ok := strings.CutPrefix(s.Text(), "eventfd-id:"); ok {
			return strings.TrimSpace(id), nil
		}
	}
	return "", nil
}

// errStale is why a note is of no use.
var errStale = errors.New("the QEMU of the host before is gone")

// adopt takes over the guest that a host before this one has left.
func (l *Listener) adopt() (*guest, error) {
	b, err := os.ReadFile(notePath(l.path))
	if err != nil {
		return nil, err
	}
	var n note
	if err := json.Unmarshal(b, &n); err != nil || len(n.Bells) != l.config.VPs || n.PID <= 0 {
		return nil, errStale
	}
	process, err := unix.PidfdOpen(n.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, errStale
	}
	if start, err := startTime(n.PID); err != nil || start != n.Start {
		unix.Close(process)
		return nil, errStale
	}
	g, err := l.take(process, &n)
	if err != nil {
		unix.Close(process)
		return nil, fmt.Errorf("take over the guest of the host before: %w", err)
	}
	return g, nil
}

// take makes a guest of a process that a note describes.
func (l *Listener) take(process int, n *note) (g *guest, err error) {
	memory, _, err := l.ram(context.Background())
	if err != nil {
		return nil, err
	}
	end := os.NewFile(uintptr(process), "QEMU")
	g = bareGuest(memory, len(n.Bells), processEnd{end})
	found, err := descriptors(process, n)
	if err == nil {
		err = g.equip(found)
	}
	if err != nil {
		for _, fd := range found {
			unix.Close(fd)
		}
		memory.Close()
		return nil, err
	}
	g.note = notePath(l.path)
	// The shim looks at each interrupt who its host is.
	atomic.AddUint32(u32(g.window.Bytes, offHostLife), 1)
	for vp := range g.bells {
		g.interrupt(vp)
	}
	unix.Write(g.door.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // what was posted meanwhile
	return g, nil
}

// descriptors fetches what a note names from the process: window, doorbell, bells.
func descriptors(process int, n *note) ([]int, error) {
	dir := fmt.Sprintf("/proc/%d/fd", n.PID)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	want := append([]string{"", n.Door}, n.Bells...)
	at := make([]int, len(want)) // the process's numbers
	for i := range at {
		at[i] = -1
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if id, _ := eventID(strconv.Itoa(n.PID), fd); id != "" {
			for i := range want {
				if want[i] == id {
					at[i] = fd
				}
			}
			continue
		}
		var st unix.Stat_t
		link, _ := os.Readlink(filepath.Join(dir, e.Name()))
		if strings.HasPrefix(link, "/memfd:"+windowName) && unix.Stat(filepath.Join(dir, e.Name()), &st) == nil && st.Ino == n.Window {
			at[0] = fd
		}
	}
	var fds []int
	for i, theirs := range at {
		if theirs < 0 {
			return fds, fmt.Errorf("%w, or has given descriptor %d of %d up", errStale, i+1, len(at))
		}
		fd, err := unix.PidfdGetfd(process, theirs, 0)
		if err != nil {
			return fds, fmt.Errorf("pidfd_getfd: %w", err)
		}
		unix.CloseOnExec(fd)
		fds = append(fds, fd)
	}
	return fds, nil
}

// equip gives a guest the descriptors of an older one. They are its own if there is no
// error.
func (g *guest) equip(fds []int) (err error) {
	seals, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_SHRINK == 0 {
		return errors.New("the window can shrink")
	}
	w := &window{memory: hv.NewMemory(hv.Limits{}), fd: fds[0]}
	if err := w.attach(); err != nil {
		w.fd = -1
		w.close()
		return err
	}
	signals, err := w.signals()
	if err == nil {
		g.door, err = doorbellOf(fds[1])
	}
	if err != nil {
		w.fd = -1
		w.close()
		return err
	}
	g.window = w
	g.synic.SetSignals(signals)
	for _, fd := range fds[2:] {
		g.bells = append(g.bells, bell{fd: fd})
	}
	w.closeFD()
	return nil
}

// A processEnd is the end of a QEMU whose socket another host had.
type processEnd struct{ file *os.File }

// await waits for the end of the process.
func (p processEnd) await() error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	first := true
	raw.Read(func(uintptr) bool {
		// A pidfd becomes readable when the process ends.
		again := !first
		first = false
		return again
	})
	return nil
}

func (p processEnd) Close() error { return p.file.Close() }
