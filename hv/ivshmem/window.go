package ivshmem

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"hvnet/hv"
)

// The window, version 1 of the contract. Offsets in bytes, all numbers little
// endian; peers/linux-guest/shim/lgv_abi.h has the same for C.
const (
	windowSize = 0x10000
	magic      = 0x3153554256474c00 // bytes 00 'L' 'G' 'V' 'B' 'U' 'S' '1'
	abiVersion = 1

	offMagic     = 0x000 // u64
	offABI       = 0x008 // u32
	offHostState = 0x00c // u32: 1 = ready
	offHostPeer  = 0x010 // u32
	offMaxVPs    = 0x014 // u32: vectors of the guest
	offRAMBytes  = 0x018 // u64
	offFeatures  = 0x030 // u32 × 4: CPUID 0x40000003 EAX, EBX, EDX, 0x40000004 EAX

	offHostLife = 0x040 // u32: changes when another host takes the guest over

	offExits   = 0x1000 // of VP 0; one each
	exitSize   = 64
	offSignals = 0x8000 // u64[256], which begins a page
)

// What the drivers read from CPUID: TLFS, "Feature Identification".
const (
	accessReferenceCounter = 1 << 1
	accessSynIC            = 1 << 2
	accessHypercallMSRs    = 1 << 5
	accessVPIndex          = 1 << 6
	features               = accessReferenceCounter | accessSynIC | accessHypercallMSRs | accessVPIndex

	postMessages = 1 << 4
	signalEvents = 1 << 5
	privileges   = postMessages | signalEvents
)

// windowName is what the kernel calls the window's file.
const windowName = "hvnet ivshmem window"

// windowGPA is where the window lies in a memory of its own. Any address does.
const windowGPA = 0x10000

// A window is the memory that host and shim share besides the guest's own.
type window struct {
	*hv.Mapping
	memory *hv.Memory
	fd     int // for QEMU; -1 once it has it
	inode  uint64
}

// newWindow returns a window that is ready for a guest of vps processors.
func newWindow(vps int, ramBytes int64) (*window, error) {
	fd, err := unix.MemfdCreate(windowName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make the window: memfd_create: %w", err)
	}
	w := &window{memory: hv.NewMemory(hv.Limits{}), fd: fd}
	if err := w.make(); err != nil {
		w.close()
		return nil, fmt.Errorf("make the window: %w", err)
	}
	b := w.Bytes
	binary.LittleEndian.PutUint64(b[offMagic:], magic)
	binary.LittleEndian.PutUint32(b[offABI:], abiVersion)
	binary.LittleEndian.PutUint32(b[offHostPeer:], hostPeer)
	binary.LittleEndian.PutUint32(b[offMaxVPs:], uint32(vps))
	binary.LittleEndian.PutUint64(b[offRAMBytes:], uint64(ramBytes))
	binary.LittleEndian.PutUint32(b[offFeatures:], features)
	binary.LittleEndian.PutUint32(b[offFeatures+4:], privileges)
	atomic.StoreUint32(u32(b, offHostState), 1)
	return w, nil
}

// make gives the window its size, for good, and maps it.
func (w *window) make() error {
	if err := unix.Ftruncate(w.fd, windowSize); err != nil {
		return fmt.Errorf("ftruncate: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(w.fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(w.fd, &st); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	w.inode = st.Ino
	return w.attach()
}

// attach maps the window.
func (w *window) attach() (err error) {
	if err := w.memory.Add(windowGPA, w.fd, 0, windowSize); err != nil {
		return err
	}
	var pfns []uint64
	for at := uint64(0); at < windowSize; at += hv.PageSize {
		pfns = append(pfns, (windowGPA+at)/hv.PageSize)
	}
	w.Mapping, err = w.memory.Map(pfns)
	return err
}

// signals returns the page with the bitmap of signalled connections, for the SynIC.
func (w *window) signals() (*hv.Mapping, error) {
	return w.memory.Map([]uint64{(windowGPA + offSignals) / hv.PageSize})
}

// closeFD closes the descriptor: QEMU has one of its own.
func (w *window) closeFD() {
	if w.fd >= 0 {
		unix.Close(w.fd)
		w.fd = -1
	}
}

// close gives everything back. Nobody uses Bytes any more.
func (w *window) close() {
	w.closeFD()
	if w.Mapping != nil {
		w.Mapping.Close()
	}
	w.memory.Close()
}

// Words of the window, which both sides use at any time.
func u32(b []byte, at int) *uint32 { return (*uint32)(unsafe.Pointer(&b[at : at+4][0])) }
func u64(b []byte, at int) *uint64 { return (*uint64)(unsafe.Pointer(&b[at : at+8][0])) }
