//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/halley-im/halley/halley/internal/bench"
)

type benchCmd struct {
	Room    benchRoom    `cmd:"" help:"Pushes at a rate to one room that all sessions are in."`
	Lone    benchLone    `cmd:"" help:"A lone push now and then to a room: the latency when nothing else goes on."`
	Users   benchUsers   `cmd:"" help:"Pushes at a rate to single users."`
	API     benchAPI     `cmd:"" name:"api" help:"As many pushes to single users as the HTTP API takes."`
	Idle    benchIdle    `cmd:"" help:"What idle sessions cost in memory."`
	Connect benchConnect `cmd:"" help:"How fast sessions are set up, authentication included."`
	Chat    benchChat    `cmd:"" help:"Conversations: between two, in a group, and catching up."`
	Calls   benchCalls   `cmd:"" help:"Calls at a rate, from the invitation to the end: how soon it rings, and how soon the caller hears of the answer."`
	Report  benchReport  `cmd:"" help:"Hold the results of bench/run.sh against the goals, in one table."`
	Ramp    benchRamp    `cmd:"" help:"Look for the highest rate to one room at which nothing is lost."`

	LimitServer limitServerCmd `cmd:"" name:"limit-server" hidden:"" help:"The bare loop of --limit; started by it."`
}

// Help is the long text of halley bench --help.
func (benchCmd) Help() string {
	return `Measures a running cluster from one process: many sessions on one cheap loop, pushes over the HTTP API, every delivery's number and time
checked. Say which processes to watch with --pids.

  halley bench room --members 1000 --rate 40 --limit --pids auto
  halley bench users --ws --pids comet=4711,logic=4712

On one machine the client needs processor time too: what holds between machines are ratios, such as comet's CPU over the bare loop's (--limit).`
}

// benchFlags are what all scenarios have.
type benchFlags struct {
	Data     dataSettings  `embed:""`
	Sign     signing       `embed:""`
	API      apiFlags      `embed:""`
	Comet    []string      `name:"comet" placeholder:"HOST:PORT" help:"Where sessions connect; several with commas are used in turn. Default: 127.0.0.1:3101, with --ws 127.0.0.1:3102."`
	WS       bool          `name:"ws" help:"Connect by WebSocket instead of TCP."`
	Goim     bool          `name:"goim" help:"Log in with goim's unsigned token and push over goim's paths: for goim_compat open, and for goim itself."`
	NoKey    bool          `name:"no-key" help:"Send no API key."`
	Sources  int           `name:"sources" help:"Loopback addresses (127.0.0.2 and up) that sessions come from; 0: enough for their number."`
	PIDs     []string      `name:"pids" placeholder:"ROLE=PID" help:"Processes whose CPU and memory are told; auto: every halley process of this machine."`
	Duration time.Duration `name:"duration" help:"How long is measured." default:"10s"`
	WarmUp   time.Duration `name:"warm-up" help:"How long the same is done before." default:"2s"`
	JSON     string        `name:"json" placeholder:"FILE" help:"Write the results there too, one JSON object a line; - is the standard output, without the table."`
	Quiet    bool          `name:"quiet" short:"q" help:"Don't tell what goes on."`
}

// bar returns what shows progress bars on a terminal.
func bar(w io.Writer) func(what string, most int64) (func(int64), func()) {
	return func(what string, most int64) (func(int64), func()) {
		b := progressbar.NewOptions64(most,
			progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what), progressbar.OptionSetWidth(40),
			progressbar.OptionSetElapsedTime(false), progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish(),
		)
		// What a terminal doesn't take is no reason to end a measurement.
		return func(done int64) { _ = b.Set64(done) }, func() { _ = b.Finish() }
	}
}

// portsPerSource is how many sessions one address is given: the system has some 28,000 ports for each.
const portsPerSource = 20000

func (f *benchFlags) setup(t *terminal, sessions int) (*bench.Setup, error) {
	s := &bench.Setup{WS: f.WS, Path: "/sub", Sources: f.Sources, Duration: f.Duration, WarmUp: f.WarmUp, Progress: func(format string, args ...any) {
		if !f.Quiet {
			fmt.Fprintf(t.err, "bench: "+format+"\n", args...)
		}
	}}
	if file, ok := t.err.(*os.File); ok && !f.Quiet && term.IsTerminal(int(file.Fd())) {
		s.Bar = bar(file)
	}
	if s.Sources == 0 {
		s.Sources = sessions/portsPerSource + 1
	}
	comets := f.Comet
	if len(comets) == 0 {
		comets = []string{"127.0.0.1:3101"}
		if f.WS {
			comets = []string{"127.0.0.1:3102"}
		}
	}
	for _, c := range comets {
		a, err := net.ResolveTCPAddr("tcp4", c)
		if err != nil {
			return nil, fmt.Errorf("--comet: %w", err)
		}
		s.Comets = append(s.Comets, netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port()))
	}
	for _, a := range s.Comets {
		if !a.Addr().IsLoopback() {
			s.Sources = 0
		}
	}
	s.API = bench.API{URL: f.API.URL, Goim: f.Goim}
	var err error
	if !f.NoKey {
		if s.API.Key, err = f.API.key(f.Data.DataDir); err != nil {
			return nil, err
		}
	}
	if !f.Goim {
		if s.Sign, err = f.Sign.key(f.Data.DataDir); err != nil {
			return nil, err
		}
	}
	s.Processes, err = bench.ParseProcesses(f.PIDs)
	return s, err
}

// report prints a result. A run that lost something, or whose pushes weren't all taken, ends with an error: it is none to be
// published.
func (f *benchFlags) report(t *terminal, r *bench.Result, err error) error {
	if r == nil {
		return err
	}
	if bad := r.Refused + r.Failed; bad > 0 && err == nil {
		err = fmt.Errorf("%d of %d pushes were refused or failed", bad, r.Pushes)
	}
	if r.Lost+r.Duplicates+r.Disorder > 0 && err == nil {
		err = fmt.Errorf("%d deliveries lost, %d twice, %d out of order", r.Lost, r.Duplicates, r.Disorder)
	}
	if o := r.Beside; o != nil && o.Lost+o.Refused+o.Failed > 0 && err == nil {
		err = fmt.Errorf("of what went on meanwhile %d deliveries lost, %d pushes refused or failed", o.Lost, o.Refused+o.Failed)
	}
	if c := r.Store; c != nil && c.Missing+c.Doubled+c.Holes > 0 && err == nil {
		err = fmt.Errorf("in the store: %d missing, %d doubled, %d holes", c.Missing, c.Doubled, c.Holes)
	}
	if f.JSON != "" {
		line, jsonErr := json.Marshal(r)
		if jsonErr != nil {
			return jsonErr
		}
		line = append(line, '\n')
		if f.JSON == "-" {
			_, jsonErr = t.out.Write(line)
			return errors.Join(err, jsonErr)
		}
		file, jsonErr := os.OpenFile(f.JSON, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if jsonErr != nil {
			return jsonErr
		}
		_, jsonErr = file.Write(line)
		if jsonErr = errors.Join(jsonErr, file.Close()); jsonErr != nil {
			return jsonErr
		}
	}
	return errors.Join(err, bench.Print(t.out, []bench.Result{*r}))
}

type benchRoom struct {
	Bench   benchFlags `embed:""`
	Members int        `name:"members" help:"Sessions in the room." default:"1000"`
	Rate    float64    `name:"rate" help:"Pushes a second." default:"40"`
	Limit   bool       `name:"limit" help:"Measure this machine's bare write(2) loop in the same pattern too."`
}

// Run measures.
func (c *benchRoom) Run(ctx context.Context, t *terminal) error {
	s, err := c.Bench.setup(t, c.Members)
	if err != nil {
		return err
	}
	s.Limit = c.Limit
	r, err := s.Room(ctx, "room", c.Members, c.Rate)
	return c.Bench.report(t, r, err)
}

type benchLone struct {
	Bench   benchFlags    `embed:""`
	Members int           `name:"members" help:"Sessions in the room." default:"1000"`
	Every   time.Duration `name:"every" help:"Time from push to push." default:"500ms"`
}

// Run measures.
func (c *benchLone) Run(ctx context.Context, t *terminal) error {
	s, err := c.Bench.setup(t, c.Members)
	if err != nil {
		return err
	}
	r, err := s.Room(ctx, "lone", c.Members, float64(time.Second)/float64(c.Every))
	return c.Bench.report(t, r, err)
}

type benchUsers struct {
	Bench benchFlags `embed:""`
	Users int        `name:"users" help:"Users, a session each." default:"1000"`
	Rate  float64    `name:"rate" help:"Pushes a second." default:"2000"`
}

// Run measures.
func (c *benchUsers) Run(ctx context.Context, t *terminal) error {
	s, err := c.Bench.setup(t, c.Users)
	if err != nil {
		return err
	}
	r, err := s.Users(ctx, c.Users, c.Rate)
	return c.Bench.report(t, r, err)
}

type benchAPI struct {
	Bench    benchFlags `embed:""`
	Users    int        `name:"users" help:"Users, a session each." default:"1000"`
	InFlight int        `name:"in-flight" help:"Requests that wait for their answer at once." default:"64"`
	Batch    int        `name:"batch" help:"Pushes in one request." default:"1"`
}

// Run measures.
func (c *benchAPI) Run(ctx context.Context, t *terminal) error {
	if c.Batch > 1 && c.Bench.Goim {
		return errors.New("--batch: goim's API has no batches")
	}
	s, err := c.Bench.setup(t, c.Users)
	if err != nil {
		return err
	}
	r, err := s.Throughput(ctx, c.Users, c.InFlight, c.Batch)
	return c.Bench.report(t, r, err)
}

type benchChat struct {
	Bench         benchFlags `embed:""`
	Scenario      string     `arg:"" enum:"direct,group,catch-up,kill" help:"direct: pairs write to each other; group: members write to a group; catch-up: a device was away and learns what it missed; kill: pairs write to each other while processes are killed, and what is stored is counted."`
	Pairs         int        `name:"pairs" help:"direct, kill: pairs of users, a session each." default:"200"`
	Rate          float64    `name:"rate" help:"direct, kill: messages a second of all together, direct with 0: as many as there is room for; group: messages a second to the group." default:"0"`
	InFlight      int        `name:"in-flight" help:"direct without a rate: messages of each user that have not come at the other side." default:"1"`
	Members       int        `name:"members" help:"group: members." default:"200"`
	Conversations int        `name:"conversations" help:"catch-up: conversations in which something is new." default:"100"`
	Entries       int        `name:"entries" help:"catch-up: new entries in each." default:"10"`
	Rounds        int        `name:"rounds" help:"catch-up: how often." default:"20"`
	Kill          []string   `name:"kill" help:"kill: roles, as --pids names them, that get a SIGKILL, one after the other; something else starts them again." default:"job,logic"`
}

// Run measures.
func (c *benchChat) Run(ctx context.Context, t *terminal) error {
	s, err := c.Bench.setup(t, 0)
	if err != nil {
		return err
	}
	var r *bench.Result
	switch c.Scenario {
	case "direct":
		r, err = s.Direct(ctx, c.Pairs, c.Rate, c.InFlight)
	case "group":
		if c.Rate <= 0 {
			return errors.New("--rate: how many messages a second?")
		}
		r, err = s.Group(ctx, c.Members, c.Rate)
	case "kill":
		if c.Rate <= 0 {
			return errors.New("--rate: how many messages a second?")
		}
		r, err = s.Killed(ctx, c.Pairs, c.Rate, c.Kill)
	default:
		r, err = s.CatchUp(ctx, c.Conversations, c.Entries, c.Rounds)
	}
	return c.Bench.report(t, r, err)
}

type benchCalls struct {
	Bench       benchFlags `embed:""`
	Pairs       int        `name:"pairs" help:"Pairs of users who call each other in turn, a session each." default:"200"`
	Rate        float64    `name:"rate" help:"Calls a second of all together. A session may invite logic.call_invite_rate times a minute: raise that." default:"50"`
	BulkMembers int        `name:"bulk-members" help:"Sessions in a room that is pushed to meanwhile, in the lane bulk; 0: none is." default:"0"`
	BulkRate    float64    `name:"bulk-rate" help:"Such pushes a second." default:"5"`
}

// Run measures.
func (c *benchCalls) Run(ctx context.Context, t *terminal) error {
	if c.Rate <= 0 || c.Pairs < 1 || c.BulkMembers > 0 && c.BulkRate <= 0 {
		return errors.New("--pairs, --rate and --bulk-rate must be above 0")
	}
	s, err := c.Bench.setup(t, c.BulkMembers)
	if err != nil {
		return err
	}
	r, err := s.Calls(ctx, c.Pairs, c.Rate, c.BulkMembers, c.BulkRate)
	return c.Bench.report(t, r, err)
}

type benchIdle struct {
	Bench    benchFlags    `embed:""`
	Sessions int           `name:"sessions" help:"Sessions." default:"10000"`
	Wait     time.Duration `name:"wait" help:"How long they are idle before memory is read." default:"10s"`
}

// Run measures.
func (c *benchIdle) Run(ctx context.Context, t *terminal) error {
	s, err := c.Bench.setup(t, c.Sessions)
	if err != nil {
		return err
	}
	r, err := s.Idle(ctx, c.Sessions, c.Wait)
	return c.Bench.report(t, r, err)
}

type benchConnect struct {
	Bench    benchFlags `embed:""`
	Sessions int        `name:"sessions" help:"Sessions." default:"15000"`
	InFlight int        `name:"in-flight" help:"Sessions that are being set up at once." default:"128"`
}

// Run measures.
func (c *benchConnect) Run(ctx context.Context, t *terminal) error {
	s, err := c.Bench.setup(t, c.Sessions)
	if err != nil {
		return err
	}
	r, err := s.Connect(ctx, c.Sessions, c.InFlight)
	return c.Bench.report(t, r, err)
}

type benchRamp struct {
	Bench   benchFlags    `embed:""`
	Members int           `name:"members" help:"Sessions in the room." default:"10000"`
	From    float64       `name:"from" help:"Pushes a second to begin with." default:"100"`
	Step    time.Duration `name:"step" help:"How long each rate is tried." default:"2s"`
}

// Run measures.
func (c *benchRamp) Run(ctx context.Context, t *terminal) error {
	s, err := c.Bench.setup(t, c.Members)
	if err != nil {
		return err
	}
	r, err := s.Ramp(ctx, c.Members, c.From, c.Step)
	return c.Bench.report(t, r, err)
}

type benchReport struct {
	File     string `arg:"" help:"What bench/run.sh wrote, or several runs with --json: one JSON object a line." type:"existingfile"`
	Markdown bool   `name:"markdown" help:"Print it as docs/performance.md has it."`
}

// Run prints the table. That a goal was missed is told, and no error: machines differ.
func (c *benchReport) Run(t *terminal) error {
	file, err := os.Open(c.File)
	if err != nil {
		return err
	}
	defer file.Close()
	s, err := bench.ReadSummary(file)
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	return s.Write(t.out, c.Markdown)
}

type limitServerCmd struct {
	WS bool `name:"ws"`
}

// Run serves until its standard input ends.
func (c *limitServerCmd) Run() error { return bench.LimitServer(os.Stdin, os.Stdout, c.WS) }
