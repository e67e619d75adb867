// Command halley is every role of a Halley cluster and its tools: `halley comet`, `halley logic`,
// `halley router`, `halley job`, or `halley all` for the whole in one process. One file holds one subcommand;
// what a role does is in the module of its name, this one only puts the parts together.
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

	"github.com/halley-im/halley/kit/conf"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // command line, environment or config file
)

// commands is the command line: one field, one subcommand, one file.
type commands struct {
	Config string `name:"config" short:"c" help:"YAML file with settings; halley config prints a sample." env:"HALLEY_CONFIG" placeholder:"FILE"`

	All    allCmd    `cmd:"" help:"Every role in one process, with Kafka and Redis inside: nothing else to install." group:"Roles"`
	Comet  cometCmd  `cmd:"" help:"Hold clients' connections." group:"Roles"`
	Logic  logicCmd  `cmd:"" help:"Verify tokens, carry out requests, serve the HTTP API." group:"Roles"`
	Router routerCmd `cmd:"" help:"Keep presence." group:"Roles"`
	Job    jobCmd    `cmd:"" help:"Bring messages from Kafka to the comets." group:"Roles"`

	Token     tokenCmd   `cmd:"" help:"Make a token that a client logs in with." group:"Tools"`
	Push      pushCmd    `cmd:"" help:"Push a message to users, rooms, session keys or all." group:"Tools"`
	Listen    listenCmd  `cmd:"" help:"Connect as a client and print what comes." group:"Tools"`
	Doctor    doctorCmd  `cmd:"" help:"Look for what is wrong with this machine and its settings, and say what helps." group:"Tools"`
	Bench     benchCmd   `cmd:"" help:"Measure a cluster, or this machine's own limit." group:"Tools"`
	Verify    verifyCmd  `cmd:"" help:"Hold a running cluster to its promise: nothing lost, nothing twice, everything in order." group:"Tools"`
	ConfigCmd configCmd  `cmd:"" name:"config" help:"Print a sample of the config file." group:"Tools"`
	Version   versionCmd `cmd:"" help:"Print the version." group:"Tools"`
}

// terminal is what a command has of its surroundings.
type terminal struct {
	out, err io.Writer
	loader   *conf.Loader
}

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		// An orderly stop may take as long as it is set to; who asks again wants it now.
		<-signals
		os.Exit(exitFailed)
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run carries out one command line and returns the exit code. Whatever fails ends here, as one line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	exited, code := false, exitOK
	parser, loader, err := newParser(&commands{}, stdout, stderr, func(c int) { exited, code = true, c })
	if err != nil {
		fmt.Fprintln(stderr, "halley:", oneLine(err))
		return exitFailed
	}
	kctx, err := parser.Parse(args)
	if exited { // --help
		return code
	}
	if err != nil {
		fmt.Fprintln(stderr, "halley:", oneLine(loader.Explain(err)))
		return exitUsage
	}
	kctx.BindTo(ctx, (*context.Context)(nil))
	kctx.Bind(&terminal{out: stdout, err: stderr, loader: loader})
	if err := kctx.Run(); err != nil {
		if text := oneLine(err); text != "" {
			fmt.Fprintln(stderr, "halley:", text)
		}
		return exitFailed
	}
	return exitOK
}

// newParser returns the parser of the command line, and the loader of the settings in it.
func newParser(grammar *commands, stdout, stderr io.Writer, exit func(int)) (*kong.Kong, *conf.Loader, error) {
	loader := conf.New("HALLEY", sections)
	opts := append(loader.Options(),
		kong.Name("halley"),
		kong.Description("Instant messaging and push for your users: connections, rooms and presence, from a laptop to a cluster."),
		kong.Writers(stdout, stderr),
		kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 120}),
	)
	parser, err := kong.New(grammar, opts...)
	return parser, loader, err
}

// errSilent ends a command with exit code 1 after it has said itself what is wrong.
var errSilent = errors.New("")

// oneLine is an error's text on one line: joined errors have several.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}
