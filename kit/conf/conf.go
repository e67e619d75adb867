// Package conf makes a program's settings out of kong-tagged structs: one field is one setting, which has a
// flag, a name in the environment and a key in the YAML file, one default and one sentence of meaning. The
// annotated sample file and the table of docs/config.md are printed from the same tags.
//
// A setting's group names its section: the field group:"comet" with the flag --comet-tcp-addr is the key
// comet.tcp_addr of the file and HALLEY_COMET_TCP_ADDR in the environment. A field of a section that names its own variable
// (env:"HALLEY_GOIM_COMPAT") is a setting of the whole: goim_compat at the top level of the file, and
// --goim-compat. Flags that belong to no section are a command's own arguments and have no key in the file.
//
// The command line wins over the environment, that over the file, that over the default. The package is
// strict: a key that no setting has, a key that is there twice and a value that can't be read are errors of one line
// that name the place, the key and the reason. It knows nothing of what the settings mean, starts no goroutine and keeps
// no state beyond one parse of the command line.
package conf

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Section is a part of the file: the settings of one role, or of one thing that roles share.
type Section struct {
	// Key is the section's key in the file and the group tag of its settings. The settings of the section whose
	// Key is "general" are at the top level of the file.
	Key string
	// Title is the heading of the section's flags in the help.
	Title string
	// Help says in a sentence or two what the section is for.
	Help string
}

// General is the key of the section whose settings are at the top level of the file.
const General = "general"

// ErrUnknownKey says that the file has a key that no setting has.
var ErrUnknownKey = errors.New("unknown key")

// Setting is one setting as the tags describe it.
type Setting struct {
	// Section and Key are its place in the file; Key is in snake_case.
	Section, Key string
	// Flag is the flag's name without dashes.
	Flag string
	// Env is the name of its variable in the environment.
	Env string
	// Default is the default as one would type it; empty for none.
	Default string
	// Help is the meaning, one or two sentences.
	Help string
	// Enum holds the legal values, if there are few.
	Enum []string

	value *kong.Value
}

// Path returns the setting's key with its section: "comet.tcp_addr", or "data_dir" in the general section.
func (s Setting) Path() string {
	if s.Section == General {
		return s.Key
	}
	return s.Section + "." + s.Key
}

// list reports whether the setting holds several values.
func (s Setting) list() bool { return s.value.Target.Kind() == reflect.Slice }

// Loader reads the settings for kong. Make one for each parse of a command line.
type Loader struct {
	prefix   string
	sections []Section
	lookup   func(string) (string, bool)

	settings []Setting
	byFlag   map[string]Setting
	file     map[string]string
	loaded   bool
}

// New returns a loader for settings of these sections, in the order in which the sample prints them. prefix
// opens the names in the environment: "HALLEY".
func New(prefix string, sections []Section) *Loader {
	return &Loader{prefix: prefix, sections: sections, lookup: os.LookupEnv, byFlag: map[string]Setting{}, file: map[string]string{}}
}

// Options returns what kong needs to take the settings from the environment and from the file that the flag
// --config names. The flag itself is the caller's: a string named "config".
func (l *Loader) Options() []kong.Option {
	groups := make([]kong.Group, len(l.sections))
	for i, s := range l.sections {
		groups[i] = kong.Group{Key: s.Key, Title: s.Title, Description: s.Help}
	}
	return []kong.Option{kong.ExplicitGroups(groups), kong.PostBuild(l.bind), kong.Resolvers(l)}
}

// Settings returns all settings of the program, section after section, each once, in the order of their
// fields. It is empty before kong.New.
func (l *Loader) Settings() []Setting { return l.settings }

// bind finds the settings in kong's model and gives each its name in the environment.
func (l *Loader) bind(k *kong.Kong) error {
	var walk func(*kong.Node) error
	walk = func(n *kong.Node) error {
		for _, f := range n.Flags {
			if err := l.add(f); err != nil {
				return err
			}
		}
		for _, c := range n.Children {
			if err := walk(c); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(k.Model.Node); err != nil {
		return err
	}
	place := func(s Setting) int {
		return slices.IndexFunc(l.sections, func(sec Section) bool { return sec.Key == s.Section })
	}
	slices.SortStableFunc(l.settings, func(a, b Setting) int { return place(a) - place(b) })
	return nil
}

// add takes f for a setting if its group is a section. Several commands may have the same setting; they must
// agree on its default.
func (l *Loader) add(f *kong.Flag) error {
	if f.Group == nil || !slices.ContainsFunc(l.sections, func(s Section) bool { return s.Key == f.Group.Key }) {
		return nil
	}
	if len(f.Envs) > 0 {
		own, ok := strings.CutPrefix(f.Envs[0], l.prefix+"_")
		if !ok {
			return fmt.Errorf("conf: the variable %s of --%s does not begin with %s_", f.Envs[0], f.Name, l.prefix)
		}
		f.Name = strings.ToLower(strings.ReplaceAll(own, "_", "-"))
		f.Group = l.general()
	}
	s := Setting{
		Section: f.Group.Key, Flag: f.Name, Default: f.Default, Help: f.Help, value: f.Value,
		Env: l.prefix + "_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")),
	}
	if f.Enum != "" {
		s.Enum = f.EnumSlice()
	}
	s.Key = f.Name
	if s.Section != General {
		short, ok := strings.CutPrefix(f.Name, s.Section+"-")
		if !ok {
			return fmt.Errorf("conf: flag --%s is in section %s but does not begin with its name", f.Name, s.Section)
		}
		s.Key = short
	}
	s.Key = strings.ReplaceAll(s.Key, "-", "_")
	// kong reads the variable itself before it asks the resolver; the flag's help shows it.
	f.Envs = []string{s.Env}
	f.Value.Tag.Envs = f.Envs
	if old, ok := l.byFlag[f.Name]; ok {
		if old.Default != s.Default {
			return fmt.Errorf("conf: --%s has the default %q in one command and %q in another", f.Name, old.Default, s.Default)
		}
		return nil
	}
	l.byFlag[f.Name] = s
	l.settings = append(l.settings, s)
	return nil
}

// general returns kong's group of the general section.
func (l *Loader) general() *kong.Group {
	g := &kong.Group{Key: General, Title: General}
	for _, s := range l.sections {
		if s.Key == General {
			g.Title, g.Description = s.Title, s.Help
		}
	}
	return g
}

// Validate does nothing; kong wants it of a resolver.
func (l *Loader) Validate(*kong.Application) error { return nil }

// Resolve gives kong a flag's value from the file, or nil where the environment has it or nobody has. The
// first call reads and checks the whole file, whatever the command needs of it: a typo in another role's section is
// found on the laptop, not in the cluster.
func (l *Loader) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if !l.loaded {
		l.loaded = true
		if err := l.load(ctx); err != nil {
			return nil, err
		}
	}
	s, ok := l.byFlag[flag.Name]
	if !ok || flag.Group == nil || flag.Group.Key != s.Section {
		return nil, nil
	}
	if _, ok := l.lookup(s.Env); ok {
		return nil, nil
	}
	if v, ok := l.file[s.Path()]; ok {
		return v, nil
	}
	return nil, nil
}

// Value returns what a setting is, as one would type it, command line aside: for commands that look at settings without
// having them as flags. It knows the file once kong has parsed a command line.
func (l *Loader) Value(s Setting) string {
	if v, ok := l.lookup(s.Env); ok {
		return v
	}
	if v, ok := l.file[s.Path()]; ok {
		return v
	}
	return s.Default
}

// IsSet reports whether somebody set the flag's setting: on the command line, in the environment or in the file, be it to
// its default.
func (l *Loader) IsSet(ctx *kong.Context, flag string) bool {
	if s, ok := l.byFlag[flag]; ok {
		if _, ok := l.lookup(s.Env); ok {
			return true
		}
	}
	return slices.ContainsFunc(ctx.Path, func(p *kong.Path) bool { return p.Flag != nil && p.Flag.Name == flag })
}

func (l *Loader) load(ctx *kong.Context) error {
	for _, s := range l.settings {
		if v, ok := l.lookup(s.Env); ok {
			if err := s.check(v); err != nil {
				return &Error{Source: "environment", Key: s.Env, Err: err}
			}
		}
	}
	name := ""
	for _, p := range ctx.Path {
		for _, f := range p.Flags {
			if f.Name == "config" {
				name, _ = ctx.FlagValue(f).(string)
			}
		}
	}
	if name == "" {
		return nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read the config file: %w", err)
	}
	values, err := l.Parse(name, b)
	if err != nil {
		return err
	}
	l.file = values
	return nil
}

// UnknownEnv returns the variables of environ ("NAME=value") that begin with the prefix and belong to no
// setting, each with the nearest setting's name or "". Kubernetes puts addresses of its services into the
// environment under such names; those are left out. The names in known are left out too.
func (l *Loader) UnknownEnv(environ []string, known ...string) map[string]string {
	names := make([]string, 0, len(l.settings))
	for _, s := range l.settings {
		names = append(names, s.Env)
	}
	unknown := map[string]string{}
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		switch {
		case !strings.HasPrefix(name, l.prefix+"_"), slices.Contains(names, name), slices.Contains(known, name):
		case strings.Contains(name, "_SERVICE_"), strings.Contains(name, "_PORT_"), strings.HasSuffix(name, "_PORT"):
		default:
			unknown[name] = nearest(name, names)
		}
	}
	return unknown
}

// check reads v as the setting's type and throws the result away.
func (s Setting) check(v string) error {
	target := reflect.New(s.value.Target.Type()).Elem()
	if target.Kind() == reflect.Pointer {
		target.Set(reflect.New(target.Type().Elem()))
	}
	scan := kong.ScanFromTokens(kong.Token{Type: kong.FlagValueToken, Value: v})
	if err := s.value.Mapper.Decode(&kong.DecodeContext{Value: s.value, Scan: scan}, target); err != nil {
		return s.unreadable(v, err)
	}
	if len(s.Enum) == 0 {
		return nil
	}
	given := []string{v}
	if s.list() {
		given = kong.SplitEscaped(v, s.value.Tag.Sep)
	}
	for _, g := range given {
		if !slices.Contains(s.Enum, g) {
			return fmt.Errorf("must be one of %s but is %q", strings.Join(s.Enum, ", "), g)
		}
	}
	return nil
}

// Error is a setting that can't be used, with its place.
type Error struct {
	// Source is "file:line", "environment" or "command line".
	Source string
	// Key is the setting's path in the file, the variable's name, or the flag.
	Key string
	Err error
}

// Error returns one line: the place, the key, the reason.
func (e *Error) Error() string { return e.Source + ": " + e.Key + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }
