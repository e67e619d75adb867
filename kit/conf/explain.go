package conf

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// Explain makes an error of kong's Parse one that says which setting is wrong, where that was set and what may be
// set. A value that can't be read names its flag, variable or key. Where a Validate refuses values it names settings by their
// last words ("comet: outbox-bytes must be greater than 0"): those of them that somebody set are told with their place. Errors
// that are none of settings stay as they are.
func (l *Loader) Explain(err error) error {
	var own *Error
	if errors.As(err, &own) {
		return own // without what kong puts before it: the flag at which it happened to ask
	}
	var parse *kong.ParseError
	if !errors.As(err, &parse) || parse.Context == nil {
		return err
	}
	if m := flagError.FindStringSubmatch(err.Error()); m != nil {
		if s, ok := l.byFlag[m[1]]; ok {
			if given := quoted.FindStringSubmatch(m[2]); given != nil {
				if bad := s.check(given[1]); bad != nil {
					return &Error{Source: "command line", Key: "--" + s.Flag, Err: bad}
				}
			}
		}
		return err
	}
	var places []string
	for _, s := range l.settings {
		if !named(s.Flag, words.FindAllString(err.Error(), -1)) {
			continue
		}
		if place := l.place(parse.Context, s); place != "" {
			places = append(places, place)
		}
	}
	text := err.Error()
	// kong puts the command's name before it, a role its own.
	if command := parse.Context.Command() + ": "; strings.HasPrefix(text, command+command) {
		text = strings.TrimPrefix(text, command)
	}
	if len(places) > 0 {
		text += " (set: " + strings.Join(places, ", ") + ")"
	}
	return &explained{text, err}
}

// explained is an error in other words.
type explained struct {
	text string
	err  error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.err }

var (
	// flagError is kong's error for a flag's value that can't be read, or that isn't one of the list.
	flagError = regexp.MustCompile(`(?s)^--([a-z0-9-]+)(?:: | must be one of )(.*)$`)
	quoted    = regexp.MustCompile(`but got "([^"]*)"`)
	words     = regexp.MustCompile(`[a-z0-9]+(?:-[a-z0-9]+)*`)
)

// named reports whether the flag's name is made of some of these words, in their order: "comet-outbox-bytes" of "comet"
// and "outbox-bytes".
func named(flag string, words []string) bool {
	for i, w := range words {
		if w == flag {
			return true
		}
		if rest, ok := strings.CutPrefix(flag, w+"-"); ok && named(rest, words[i+1:]) {
			return true
		}
	}
	return false
}

// place says where a setting was set, and to what; empty if nobody set it. Texts are not shown: they may be secret.
func (l *Loader) place(ctx *kong.Context, s Setting) string {
	value := ""
	switch s.value.Target.Kind() {
	case reflect.String, reflect.Slice, reflect.Map:
	default:
		value = "=" + l.Value(s)
	}
	for _, p := range ctx.Path {
		if p.Flag != nil && p.Flag.Name == s.Flag && !p.Resolved {
			if value != "" {
				value = fmt.Sprintf("=%v", ctx.FlagValue(p.Flag))
			}
			return "--" + s.Flag + value
		}
	}
	if _, ok := l.lookup(s.Env); ok {
		return s.Env + value
	}
	if _, ok := l.file[s.Path()]; ok {
		return "in the file " + s.Path() + value
	}
	return ""
}

// unreadable says that v is not of the setting's type, and what is.
func (s Setting) unreadable(v string, err error) error {
	t := s.value.Target.Type()
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return fmt.Errorf("%q is no duration: write it like 250ms, 10s or 1h30m", v)
	case t.Kind() == reflect.Bool:
		return fmt.Errorf("%q is neither true nor false", v)
	case slices.Contains([]reflect.Kind{reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64}, t.Kind()):
		return fmt.Errorf("%q is no whole number, or too large a one", v)
	case t.Kind() == reflect.Float32, t.Kind() == reflect.Float64:
		return fmt.Errorf("%q is no number", v)
	}
	return fmt.Errorf("%q can't be read: %w", v, err)
}
