package main

import (
	"fmt"
	"io"
)

type configCmd struct {
	Markdown bool   `name:"markdown" help:"Print the tables of docs/config.md instead."`
	Check    string `name:"check" placeholder:"FILE" help:"Only check this file, and print nothing if it is right."`
}

// Help is the long text of halley config --help.
func (configCmd) Help() string {
	return `Prints every setting with its meaning, its variable and its default, as a YAML file in which all lines are comments.

  halley config > halley.yaml       then take away the # before what you change
  halley config --check halley.yaml`
}

// preamble opens docs/config.md.
const preamble = `# Configuration

<!-- Printed by "halley config --markdown" from the fields of the Config structs. Change those. -->

Every setting has a flag, a variable in the environment and a key in a YAML file (` + "`--config FILE`" + ` or
` + "`HALLEY_CONFIG`" + `). The flag wins over the variable, that over the file, that over the default. A dot in a key is a level in
the file. One file can serve all roles: each takes what it needs, all of it is checked. An unknown key is an error; lists are YAML
lists in the file and have commas elsewhere; durations look like ` + "`1h30m`" + ` or ` + "`250ms`" + `.

` + "`halley config`" + ` prints a sample file, ` + "`halley config --check FILE`" + ` checks one.

`

// Run prints the sample, the tables, or what is wrong with a file.
func (c *configCmd) Run(t *terminal) error {
	switch {
	case c.Check != "":
		return t.loader.Check(c.Check)
	case c.Markdown:
		if _, err := io.WriteString(t.out, preamble); err != nil {
			return err
		}
		return t.loader.WriteMarkdown(t.out)
	}
	if _, err := fmt.Fprintln(t.out, "# Settings of Halley. Every line is a comment with its default: take away the # before what you change."); err != nil {
		return err
	}
	return t.loader.WriteSample(t.out)
}
