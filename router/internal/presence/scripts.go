package presence

import (
	"context"
	"crypto/sha1" //nolint:gosec // Redis names scripts by SHA-1.
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/commit.lua
var commitSource string

//go:embed lua/claim.lua
var claimSource string

//go:embed lua/renew.lua
var renewSource string

//go:embed lua/leases.lua
var leasesSource string

//go:embed lua/kill.lua
var killSource string

type script struct{ source, sha string }

func newScript(source string) *script {
	sum := sha1.Sum([]byte(source)) //nolint:gosec // see above
	return &script{source: source, sha: hex.EncodeToString(sum[:])}
}

var (
	commitScript = newScript(commitSource)
	claimScript  = newScript(claimSource)
	renewScript  = newScript(renewSource)
	leasesScript = newScript(leasesSource)
	killScript   = newScript(killSource)
	allScripts   = []*script{commitScript, claimScript, renewScript, leasesScript, killScript}
)

// load puts the scripts onto every master: a pipeline can't fall back to EVAL by itself.
func load(ctx context.Context, c redis.UniversalClient) error {
	put := func(ctx context.Context, c redis.Cmdable) error {
		for _, s := range allScripts {
			if err := c.ScriptLoad(ctx, s.source).Err(); err != nil {
				return fmt.Errorf("load script: %w", err)
			}
		}
		return nil
	}
	if cc, ok := c.(*redis.ClusterClient); ok {
		return cc.ForEachMaster(ctx, func(ctx context.Context, m *redis.Client) error { return put(ctx, m) })
	}
	return put(ctx, c)
}

// call is one run of a script, of which a batch is sent at once.
type call struct {
	script *script
	keys   []string
	args   []any
	cmd    *redis.Cmd
}

// runAll sends the calls in one trip, and those again, once, that met a server which doesn't know the script.
// It returns the first error.
func runAll(ctx context.Context, c redis.UniversalClient, calls []*call) error {
	if len(calls) == 0 {
		return nil
	}
	if err := send(ctx, c, calls); err == nil {
		return nil
	}
	return runAgain(ctx, c, calls)
}

// runAgain sends those calls again that met a server which doesn't know the script.
func runAgain(ctx context.Context, c redis.UniversalClient, calls []*call) error {
	var again []*call
	for _, k := range calls {
		err := k.cmd.Err()
		switch {
		case err == nil:
		case isNoScript(err):
			again = append(again, k)
		default:
			return err
		}
	}
	if len(again) == 0 {
		return nil
	}
	if err := load(ctx, c); err != nil {
		return err
	}
	return send(ctx, c, again)
}

func send(ctx context.Context, c redis.UniversalClient, calls []*call) error {
	if len(calls) == 1 {
		k := calls[0]
		k.cmd = c.EvalSha(ctx, k.script.sha, k.keys, k.args...)
		return k.cmd.Err()
	}
	_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, k := range calls {
			k.cmd = p.EvalSha(ctx, k.script.sha, k.keys, k.args...)
		}
		return nil
	})
	return err
}

func isNoScript(err error) bool {
	var re redis.Error
	return errors.As(err, &re) && strings.HasPrefix(re.Error(), "NOSCRIPT")
}
