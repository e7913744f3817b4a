package attach

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// checkMemory returns why a descriptor is not good as guest memory: if it is not
// trusted, it must be of a memfd on tmpfs that can't shrink, for all else may fault
// when touched, or hang. Seals come first because only memfds have any: not even
// the size is asked of a file that may be served by the guest itself.
func checkMemory(fd int, r region, trust bool) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return fmt.Errorf("look at the descriptor: %w", err)
	}
	if flags&unix.O_ACCMODE != unix.O_RDWR {
		return errors.New("the descriptor is not open for reading and writing")
	}
	if !trust {
		seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
		if err != nil {
			return errors.New("the descriptor is not a memfd")
		}
		if seals&unix.F_SEAL_SHRINK == 0 {
			return errors.New("the memfd is not sealed against shrinking (F_SEAL_SHRINK)")
		}
		var fs unix.Statfs_t
		if err := unix.Fstatfs(fd, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
			return errors.New("the memfd is not on tmpfs")
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("ask for the size of the memory: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("the descriptor is not of a regular file")
	}
	size := uint64(max(st.Size, 0))
	if r.offset > size || r.size > size-r.offset {
		return fmt.Errorf("the file has %d bytes, too few for %d at offset %d", size, r.size, r.offset)
	}
	return nil
}
