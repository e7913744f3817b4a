package golden

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// Patience is how long a command may take to answer.
const Patience = 30 * time.Second

// Ask runs a command line and returns its answer. One that begins with "nobody" is run
// without rights.
func Ask(command string) (Text, error) {
	words, err := Words(command)
	if err != nil {
		return Text{}, err
	}
	attr := &syscall.SysProcAttr{}
	if words[0] == "nobody" {
		words = words[1:]
		attr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	c := exec.CommandContext(ctx, words[0], words[1:]...)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr, c.SysProcAttr = &stdout, &stderr, attr
	err = c.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		return Text{}, fmt.Errorf("run %s: %w", command, errors.Join(err, ctx.Err()))
	}
	return Text{Command: command, Stdout: stdout.String(), Stderr: stderr.String(), Status: c.ProcessState.ExitCode()}, nil
}
