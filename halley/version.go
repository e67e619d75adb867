package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set at release: -ldflags "-X main.version=v1.2.3".
var version = "dev"

type versionCmd struct{}

// Run prints the version, the commit that it was built from, Go's version and the platform.
func (versionCmd) Run(t *terminal) error {
	commit := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = " " + s.Value
			}
		}
	}
	_, err := fmt.Fprintf(t.out, "halley %s%s %s %s/%s\n", version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
