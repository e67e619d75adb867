package rpc

import (
	"context"
	"encoding/json"

	"github.com/halley-im/halley/logic/internal/conversation"
)

// personArgs are the arguments of all methods of people; each method has some of them.
type personArgs struct {
	UIDs       []string `json:"uids"`
	UID        string   `json:"uid"`
	Query      string   `json:"query"`
	Cursor     string   `json:"cursor"`
	Limit      uint32   `json:"limit"`
	Name       *string  `json:"name"`
	Avatar     *string  `json:"avatar"`
	Visibility *string  `json:"visibility"`
	Remark     string   `json:"remark"`
	Note       string   `json:"note"`
	Accept     bool     `json:"accept"`
	Off        bool     `json:"off"`
}

func getUsers(ctx context.Context, c *call, a *personArgs) (any, error) {
	return result(c.s.d.Chat.Users(ctx, c.tenant(), c.uid(), a.UIDs))
}

func searchUsers(ctx context.Context, c *call, a *personArgs) (any, error) {
	return result(c.s.d.Chat.Search(ctx, c.tenant(), c.uid(), a.Query, a.Limit))
}

func updateUser(ctx context.Context, c *call, a *personArgs) (any, error) {
	return result(c.s.d.Chat.UpdateOwn(ctx, c.tenant(), conversation.UserUpdate{UID: c.uid(), Name: a.Name, Avatar: a.Avatar, Visibility: a.Visibility}))
}

func listContacts(ctx context.Context, c *call, a *personArgs) (any, error) {
	return result(c.s.d.Chat.Contacts(ctx, c.tenant(), c.uid(), a.Cursor, a.Limit))
}

// contact makes a run of a method that changes a contact.
func contact(act func(*personArgs) conversation.ContactAct) func(context.Context, *call, json.RawMessage) (any, error) {
	return handle(func(ctx context.Context, c *call, a *personArgs) (any, error) {
		return acceptance(c.s.d.Chat.Contact(ctx, c.origin(), c.tenant(), c.uid(), a.UID, act(a), a.Remark, a.Note))
	})
}

func does(act conversation.ContactAct) func(*personArgs) conversation.ContactAct {
	return func(*personArgs) conversation.ContactAct { return act }
}

func answers(a *personArgs) conversation.ContactAct {
	if a.Accept {
		return conversation.ContactAccept
	}
	return conversation.ContactDecline
}

func listBlocks(ctx context.Context, c *call, a *personArgs) (any, error) {
	return result(c.s.d.Chat.Blocks(ctx, c.tenant(), c.uid(), a.Cursor, a.Limit))
}

func setBlock(ctx context.Context, c *call, a *personArgs) (any, error) {
	return acceptance(c.s.d.Chat.Block(ctx, c.origin(), c.tenant(), c.uid(), a.UID, a.Off))
}
