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
	"path/filepath"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"hvnet/conform"
	"hvnet/netvsc"
	"hvnet/netvsp/profile"
	"hvnet/sandbox"
)

// Exit statuses other than those that a command run inside returns.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 128 // and the number of the signal
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
	Demo     demoCmd          `cmd:"" help:"The tour: a host, two guests, real traffic. It needs no rights and ends by itself."`
	Run      runCmd           `cmd:"" help:"A host, a guest, and the guest's eth0 in a network namespace, with CMD or a shell in it. The namespace reaches the machine and beyond by NAT."`
	Host     hostCmd          `cmd:"" help:"An emulated Hyper-V network host that guests attach to."`
	Up       upCmd            `cmd:"" help:"A guest of a running host, its NIC as a kernel interface in this network namespace. It lasts until Ctrl-C, or until the host is gone."`
	Bench    benchCmd         `cmd:"" help:"Measurements of a guest and its host together."`
	Ethtool  ethtoolCmd       `cmd:"" passthrough:"" help:"ethtool's own command line and text, for hvnet's interfaces and the kernel's."`
	Explain  explainCmd       `cmd:"" help:"Say what a counter of 'hvnet ethtool -S' or a feature of 'hvnet ethtool -k' is, and what to do about it."`
	Doctor   doctorCmd        `cmd:"" help:"Say what is wrong with netvsc interfaces, hvnet's or the kernel's on Hyper-V and Azure, and how to mend it."`
	Exec     execCmd          `cmd:"" help:"Run CMD, such as the real ethtool, with its questions about hvnet's interfaces answered by their drivers."`
	Capture  captureCmd       `cmd:"" help:"Write the frames of an interface to a file that Wireshark opens; 'hvnet host ctl PATH capture PORT' does it for a port of a host."`
	Top      topCmd           `cmd:"" help:"Show the rates of an interface's channels, what they are spread by and what is lost, until q is pressed."`
	VF       vfCmd            `cmd:"" name:"vf" help:"The virtual function of an interface: vf timeline says when the data path moved, and why."`
	Channels channelsCmd      `cmd:"" help:"Which virtual processor the host interrupts for each channel of an interface."`
	Suspend  suspendCmd       `cmd:"" help:"Take the NIC behind an interface apart, as a machine does before it sleeps."`
	Resume   resumeCmd        `cmd:"" help:"Bring a suspended NIC up again."`
	Station  stationCmd       `cmd:"" hidden:""`
	Version  kong.VersionFlag `help:"Print the version and exit."`
}

func main() {
	sandbox.MaybeHelper()
	ctx, interrupt := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		sig := <-signals
		signal.Stop(signals) // who is in a hurry sends a second one
		interrupt(interrupted{sig.(syscall.Signal)})
	}()
	out := &output{file: os.Stdout}
	status := run(ctx, arguments(os.Args), out, os.Stderr)
	if out.err != nil && status == 0 {
		fmt.Fprintf(os.Stderr, "hvnet: %v\n", out.err)
		status = exitFailure
	}
	os.Exit(status)
}

// arguments returns the command line behind the program's name. By the name of ethtool it
// is ethtool.
func arguments(args []string) []string {
	if filepath.Base(args[0]) == "ethtool" {
		return append([]string{"ethtool"}, args[1:]...)
	}
	return args[1:]
}

// An output is a file that remembers whether something could not be written.
type output struct {
	file *os.File
	err  error
}

// Stat tells who prints on it whether it is a terminal.
func (o *output) Stat() (os.FileInfo, error) { return o.file.Stat() }

func (o *output) Write(b []byte) (int, error) {
	n, err := o.file.Write(b)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// interrupted is why the context of a command ends before the command does.
type interrupted struct{ by syscall.Signal }

func (i interrupted) Error() string { return "interrupted" }

// streams is where a command prints.
type streams struct{ out, err io.Writer }

// run runs one command line and returns its exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var cli commands
	exited := -1
	parser, err := newParser(ctx, &cli, streams{stdout, stderr}, func(code int) { exited = code })
	if err != nil {
		fmt.Fprintln(stderr, "hvnet:", err)
		return exitFailure
	}
	cmd, err := parser.Parse(asTyped(args))
	switch {
	case exited >= 0: // --help, --version
		return exited
	case err != nil:
		fmt.Fprintf(stderr, "hvnet: %s\n", explain(err))
		return exitUsage
	}
	err = cmd.Run()
	var usage usageError
	var exit exitError
	var signal interrupted
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
	case errors.As(context.Cause(ctx), &signal) && (errors.Is(err, context.Canceled) || errors.Is(err, signal)):
		fmt.Fprintln(stderr, "hvnet: interrupted")
		return exitInterrupted + int(signal.by)
	}
	fmt.Fprintf(stderr, "hvnet: %v\n", err)
	return exitFailure
}

// newParser returns the parser of the command line. It calls exit when the command
// line asked for help alone.
func newParser(ctx context.Context, cli *commands, s streams, exit func(code int)) (*kong.Kong, error) {
	return kong.New(cli,
		kong.Name("hvnet"),
		kong.Description("The Hyper-V network driver in user space, and the host it talks to."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Help(help),
		kong.Writers(s.out, s.err),
		kong.Exit(exit),
		kong.Vars(vars()),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(s, cli),
	)
}

// vars are the words that flags and their help are made of.
func vars() map[string]string {
	return map[string]string{
		"version":  "hvnet " + netvsc.Version(),
		"profile":  profile.Default,
		"profiles": strings.Join(profile.Names(), ", "),
		"stages":   conform.StageNames(),
	}
}
