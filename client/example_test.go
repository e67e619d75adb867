package client_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/halley-im/halley/client"
)

// A chat in the terminal: what is typed is sent to bob, what comes is printed, until Ctrl-C.
func Example() {
	var chat *client.Chat
	chat, err := client.NewChat(client.ChatOptions{
		Options: client.Options{
			URL:     "ws://127.0.0.1:3102/sub",
			Token:   func(context.Context, client.TokenReason) (string, error) { return os.Getenv("HALLEY_TOKEN"), nil },
			OnState: func(s client.State) { fmt.Println("--", s.Name) },
		},
		OnEntries: func(conversation string, entries []client.Entry, _ bool) {
			for _, e := range entries {
				if e.Kind == client.KindMessage {
					fmt.Printf("%s: %s\n", e.From, e.Body)
				}
			}
			chat.MarkRead(conversation, nil)
		},
		OnOutgoing: func(o client.Outgoing) { fmt.Println("--", o.ID, "is", o.Stage) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			if _, err := chat.Send(client.DirectID("ann", "bob"), in.Text(), client.SendOptions{}); err != nil {
				fmt.Println("--", err)
			}
		}
	}()
	if err := chat.Run(ctx); err != nil {
		fmt.Println(err)
	}
}
