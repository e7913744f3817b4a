//go:build !amd64 && !arm64

package sandbox

// auditArch is how the kernel names this machine to a filter; 0: there is none for it.
const auditArch = 0
