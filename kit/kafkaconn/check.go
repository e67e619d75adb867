package kafkaconn

import (
	"context"
	"errors"
	"sync"

	"github.com/segmentio/kafka-go"
)

// Check reports whether a broker answers, in Config.CheckTimeout. It asks all of them anew each time: a kafka-go client goes on telling what it
// knew of a cluster that is gone.
func Check(ctx context.Context, c Config) error {
	ctx, cancel := context.WithTimeout(ctx, c.CheckTimeout)
	defer cancel()
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel() // of those that nobody waits for
	answers := make(chan error, len(c.Brokers))
	for _, addr := range c.Brokers {
		asking.Go(func() { answers <- ask(ctx, addr) })
	}
	var failed []error
	for range c.Brokers {
		err := <-answers
		if err == nil {
			return nil
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// ask asks one broker what it can do.
func ask(ctx context.Context, addr string) error {
	conn, err := (&kafka.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }()
	_, err = conn.ApiVersions()
	return err
}
