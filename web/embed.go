// Package web holds the built files of Halley's web app, so that the one binary serves them.
//
// The sources are TypeScript (sdk, app); `npm run build` writes dist, which is committed: `go build` on a
// fresh clone needs no Node. `npm run check:dist` tells whether dist is what the sources build to.
package web

import (
	"embed"
	"io/fs"
)

// all: keeps files whose names begin with "_" or ".", which embed leaves out otherwise: the bundler may name
// a chunk so.
//
//go:embed all:dist
var dist embed.FS

// Files returns the built files: the pages at its root (index.html, the messenger, and one for each of
// /playground and /admin), everything with a hash in its name below assets. Files below assets never change
// under the same name and may be cached for ever; the pages must be revalidated. The pages need no more than this Content-Security-Policy:
//
//	default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self';
//	connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'
//
// The result is read-only and safe for concurrent use.
func Files() fs.FS {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // The folder is part of the program: without it, it would not have been compiled.
	}
	return files
}
