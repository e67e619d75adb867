package embedded

import (
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// redisTick is how often the embedded Redis' clock moves: keys expire at most that much late.
const redisTick = 50 * time.Millisecond

// Redis is a Redis in this process: miniredis. It keeps nothing over a restart.
type Redis struct {
	m    *miniredis.Miniredis
	stop chan struct{}
	wg   sync.WaitGroup
}

// StartRedis starts Redis on a free loopback port. Its clock is ticked: by itself miniredis never expires a key.
func StartRedis() (*Redis, error) {
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		return nil, err
	}
	r := &Redis{m: m, stop: make(chan struct{})}
	r.wg.Go(r.tick)
	return r, nil
}

// tick moves the clock until Close.
func (r *Redis) tick() {
	t := time.NewTicker(redisTick)
	defer t.Stop()
	last := time.Now()
	for {
		select {
		case <-r.stop:
			return
		case <-t.C:
			now := time.Now()
			r.m.FastForward(now.Sub(last))
			last = now
		}
	}
}

// Addr returns host:port.
func (r *Redis) Addr() string { return r.m.Addr() }

// FlushAll forgets everything, as a Redis does that is restarted empty.
func (r *Redis) FlushAll() { r.m.FlushAll() }

// Close ends the server.
func (r *Redis) Close() {
	close(r.stop)
	r.wg.Wait()
	r.m.Close()
}
