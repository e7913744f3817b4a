package sandbox

import "golang.org/x/sys/unix"

// auditArch is how the kernel names this machine to a filter.
const auditArch = unix.AUDIT_ARCH_AARCH64
