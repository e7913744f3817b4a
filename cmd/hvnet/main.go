// Command hvnet is the Hyper-V network driver in user space and the emulated host
// that it talks to. Its subcommands are thin: each parses its flags and calls the
// packages.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"hvnet/netvsc"
	"hvnet/netvsp/profile"
	"hvnet/sandbox"
)

// Exit statuses other than those that a command run inside returns.
const (
	exitFailure = 1
	exitUsage   = 2
)

// A usageError is what the user typed wrong; it makes the exit status exitUsage.
type usageError struct{ error }

// usagef returns a usage error.
func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// An exitError carries the exit status of a command that hvnet ran, and why it is
// that if the command itself has not said so.
type exitError struct {
	status int
	why    error
}

func (e exitError) Error() string {
	if e.why != nil {
		return e.why.Error()
	}
	return fmt.Sprintf("exit status %d", e.status)
}

// commands is the command line.
type commands struct {
	Demo    demoCmd          `cmd:"" help:"The tour: every feature once, with real traffic. Needs nothing but Go."`
	Run     runCmd           `cmd:"" help:"A host of its own, the driver, and eth0 in a namespace of its own, with CMD or a shell in it."`
	Host    hostCmd          `cmd:"" help:"An emulated Hyper-V network host that guests attach to."`
	Up      upCmd            `cmd:"" help:"Attach a guest to a host and bring its NIC up as a kernel interface."`
	Ethtool ethtoolCmd       `cmd:"" passthrough:"" help:"ethtool's own command line and text, for hvnet's interfaces."`
	Station stationCmd       `cmd:"" hidden:""`
	Version kong.VersionFlag `help:"Print the version and exit."`
}

func main() {
	sandbox.MaybeHelper()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // who is in a hurry sends a second signal
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// streams is where a command prints.
type streams struct{ out, err io.Writer }

// run runs one command line and returns its exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var cli commands
	exited := -1
	parser, err := kong.New(&cli,
		kong.Name("hvnet"),
		kong.Description("The Hyper-V network driver in user space, and the host it talks to."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Help(help),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code }),
		kong.Vars(vars()),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(streams{stdout, stderr}, &cli),
	)
	if err != nil {
		fmt.Fprintln(stderr, "hvnet:", err)
		return exitFailure
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	cmd, err := parser.Parse(args)
	switch {
	case exited >= 0: // --help, --version
		return exited
	case err != nil:
		fmt.Fprintf(stderr, "hvnet: %v\nTry 'hvnet --help'.\n", err)
		return exitUsage
	}
	err = cmd.Run()
	var usage usageError
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if exit.why != nil || err.Error() != exit.Error() { // else the command has said all
			fmt.Fprintf(stderr, "hvnet: %v\n", err)
		}
		return exit.status
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "hvnet: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "hvnet: %v\n", err)
	return exitFailure
}

// help prints the help of a command, or of what the command does by default.
func help(opt kong.HelpOptions, ctx *kong.Context) error {
	if c := ctx.Selected(); c != nil && c.DefaultCmd != nil {
		ctx.Path = append(ctx.Path, &kong.Path{Parent: c, Command: c.DefaultCmd})
	}
	return kong.DefaultHelpPrinter(opt, ctx)
}

// vars are the words that flags and their help are made of.
func vars() map[string]string {
	return map[string]string{
		"version":  "hvnet " + netvsc.Version(),
		"profile":  profile.Default,
		"profiles": strings.Join(profile.Names(), ", "),
	}
}
