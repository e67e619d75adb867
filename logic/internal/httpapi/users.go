package httpapi

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
)

// UserPath is the parameter of paths of a user.
type UserPath struct {
	UID string `path:"uid" doc:"The user." example:"ann"`
}

// PeerPath is the parameter of paths of what a user keeps of another one.
type PeerPath struct {
	UserPath
	Peer string `path:"peer" doc:"The other user."`
}

// Profile is what is set of a user's profile; what is left out stays.
type Profile struct {
	Name       *string         `json:"name,omitempty" doc:"What others see; at most 255 bytes."`
	Avatar     *string         `json:"avatar,omitempty" doc:"At most 1,024 bytes, a URL as a rule."`
	Profile    json.RawMessage `json:"profile,omitempty" doc:"Any JSON that the host keeps, at most 64 KiB; null: none."`
	Visibility *string         `json:"visibility,omitempty" enum:"contacts,all,nobody" doc:"Who may see his presence; contacts if never said."`
	Disabled   *bool           `json:"disabled,omitempty" doc:"true: isn't found by a search, gets no token here; those that he has become void and his sessions end."`
}

// NamedProfile is a profile and whose it is.
type NamedProfile struct {
	UID string `json:"uid"`
	Profile
}

func (p *Profile) update(uid string) conversation.UserUpdate {
	return conversation.UserUpdate{UID: uid, Name: p.Name, Avatar: p.Avatar, Visibility: p.Visibility, Profile: p.Profile, Disabled: p.Disabled}
}

type (
	userInput    struct{ UserPath }
	userOutput   struct{ Body conversation.User }
	usersOutput  struct{ Body conversation.Users }
	profileInput struct {
		UserPath
		Body Profile
	}
	putUsersInput struct {
		Body struct {
			Users []NamedProfile `json:"users" minItems:"1" maxItems:"1000" doc:"Up to 1,000; all are kept or none."`
		}
	}
	searchInput struct {
		Query string `query:"query" required:"true" doc:"What the uid or the name begins with; case counts in uids only."`
		Limit uint32 `query:"limit" default:"20" minimum:"1" maximum:"50"`
	}
	pageInput struct {
		UserPath
		Cursor string `query:"cursor" doc:"Field next of the page before."`
		Limit  uint32 `query:"limit" default:"50" minimum:"1" maximum:"200"`
	}
	listOutput struct{ Body conversation.Page }
	syncInput  struct {
		UserPath
		Body struct {
			Conversations map[string]int64 `json:"conversations,omitempty" doc:"The last seq of each conversation up to which the device has everything."`
			UserChange    int64            `json:"user_change,omitempty" minimum:"0" doc:"Number of the last user change that it has."`
			Above         string           `json:"above,omitempty" doc:"Only conversations with an id above this one, compared byte by byte."`
			UpTo          string           `json:"up_to,omitempty" doc:"Only conversations with an id up to this one."`
		}
	}
	syncOutput    struct{ Body conversation.SyncPage }
	settingsInput struct {
		UserPath
		ConversationPath
		Body struct {
			Mute  *bool   `json:"mute,omitempty" doc:"No notifications."`
			Pin   *bool   `json:"pin,omitempty" doc:"At the top of his list."`
			Hide  *bool   `json:"hide,omitempty" doc:"Off his list until the next message."`
			Draft *string `json:"draft,omitempty" doc:"At most 4,096 bytes; empty: none."`
			Clear *int64  `json:"clear,omitempty" minimum:"0" doc:"He wants to see nothing up to this seq any more."`
		}
	}
	hideInput struct {
		UserPath
		MessagePath
	}
	contactsOutput struct{ Body conversation.ContactPage }
	contactInput   struct {
		PeerPath
		Body struct {
			Act    string `json:"act" enum:"ask,accept,decline,remark,join" doc:"In the user's name: ask the other one, answer his request, change one's own name for him; join: make them contacts without asking."`
			Remark string `json:"remark,omitempty" doc:"The user's own name for the other one; at most 255 bytes."`
			Note   string `json:"note,omitempty" doc:"What is said with the request; at most 1,024 bytes."`
		}
	}
	peerInput struct{ PeerPath }
)

func (a *api) registerUsers() {
	op := func(id, method, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{"users"}}
	}
	read, write := route{scope: apikey.Chat | apikey.Read}, route{scope: apikey.Chat, replay: true}
	const one = "/v1/users/{uid}"
	handle(a, read, op("search-users", http.MethodGet, "/v1/users", "Find users by uid or name"), a.searchUsers)
	handle(a, write, op("put-users", http.MethodPost, "/v1/users", "Set the profiles of many users"), a.putUsers)
	handle(a, read, op("get-user", http.MethodGet, one, "A user's profile"), a.getUser)
	handle(a, write, op("put-user", http.MethodPut, one, "Set a user's profile"), a.putUser)
	handle(a, read, op("list-conversations", http.MethodGet, one+"/conversations", "A user's conversations, those with the newest message first"), a.listConversations)
	handle(a, read, op("sync-user", http.MethodPost, one+"/sync", "What is newer than what a device has"), a.syncUser)
	handle(a, write, op("put-settings", http.MethodPut, one+"/conversations/{conversation}/settings", "Set what concerns a conversation for the user alone"), a.putSettings)
	handle(a, write, op("hide-message", http.MethodDelete, one+"/conversations/{conversation}/messages/{seq}", "Hide a message from the user alone"), a.hideMessage)
	handle(a, read, op("list-contacts", http.MethodGet, one+"/contacts", "A user's contacts and requests"), a.listContacts)
	handle(a, write, op("put-contact", http.MethodPut, one+"/contacts/{peer}", "Ask, answer or name a contact"), a.putContact)
	handle(a, write, op("remove-contact", http.MethodDelete, one+"/contacts/{peer}", "End it for both"), a.removeContact)
	handle(a, read, op("list-blocks", http.MethodGet, one+"/blocks", "Whom a user blocks"), a.listBlocks)
	handle(a, write, op("block-user", http.MethodPut, one+"/blocks/{peer}", "Block"), a.block)
	handle(a, write, op("unblock-user", http.MethodDelete, one+"/blocks/{peer}", "Block no longer"), a.unblock)
}

func (a *api) searchUsers(ctx context.Context, in *searchInput) (*usersOutput, error) {
	list, err := a.d.Chat.Search(ctx, callOf(ctx).tenant, "", in.Query, in.Limit)
	if err != nil {
		return nil, err
	}
	return &usersOutput{*list}, nil
}

func (a *api) putUsers(ctx context.Context, in *putUsersInput) (*usersOutput, error) {
	updates := make([]conversation.UserUpdate, len(in.Body.Users))
	for i := range in.Body.Users {
		updates[i] = in.Body.Users[i].update(in.Body.Users[i].UID)
	}
	list, err := a.updateUsers(ctx, updates)
	if err != nil {
		return nil, err
	}
	return &usersOutput{*list}, nil
}

func (a *api) getUser(ctx context.Context, in *userInput) (*userOutput, error) {
	list, err := a.d.Chat.Users(ctx, callOf(ctx).tenant, "", []string{in.UID})
	if err != nil {
		return nil, err
	}
	if len(list.Users) == 0 {
		return nil, errcode.NotFound
	}
	return &userOutput{list.Users[0]}, nil
}

func (a *api) putUser(ctx context.Context, in *profileInput) (*userOutput, error) {
	list, err := a.updateUsers(ctx, []conversation.UserUpdate{in.Body.update(in.UID)})
	if err != nil {
		return nil, err
	}
	return &userOutput{list.Users[0]}, nil
}

// updateUsers sets profiles, and puts out those who are disabled now: in this order, so that none gets a new token meanwhile.
func (a *api) updateUsers(ctx context.Context, updates []conversation.UserUpdate) (*conversation.Users, error) {
	tenant := callOf(ctx).tenant
	list, err := a.d.Chat.UpdateUsers(ctx, tenant, updates)
	if err != nil {
		return nil, err
	}
	for i := range updates {
		if d := updates[i].Disabled; d != nil && *d {
			if err := a.revoke(ctx, tenant, updates[i].UID, "", a.now()); err != nil {
				return nil, err
			}
		}
	}
	return list, nil
}

func (a *api) listConversations(ctx context.Context, in *pageInput) (*listOutput, error) {
	if err := name.UID(in.UID); err != nil {
		return nil, err
	}
	page, err := a.d.Chat.List(ctx, callOf(ctx).tenant, in.UID, in.Cursor, in.Limit)
	if err != nil {
		return nil, err
	}
	return &listOutput{*page}, nil
}

func (a *api) syncUser(ctx context.Context, in *syncInput) (*syncOutput, error) {
	if err := name.UID(in.UID); err != nil {
		return nil, err
	}
	b := &in.Body
	page, err := a.d.Chat.Sync(ctx, callOf(ctx).tenant, in.UID, conversation.Have{
		Conversations: b.Conversations, UserChange: b.UserChange, Above: b.Above, UpTo: b.UpTo,
	})
	if err != nil {
		return nil, err
	}
	return &syncOutput{*page}, nil
}

func (a *api) putSettings(ctx context.Context, in *settingsInput) (*doneOutput, error) {
	if err := name.UID(in.UID); err != nil {
		return nil, err
	}
	b := &in.Body
	return accepted(a.d.Chat.Set(ctx, unwaited(), callOf(ctx).tenant, in.UID, in.Conversation, conversation.Settings{
		Mute: b.Mute, Pin: b.Pin, Hide: b.Hide, Draft: b.Draft, Clear: b.Clear,
	}))
}

func (a *api) hideMessage(ctx context.Context, in *hideInput) (*doneOutput, error) {
	if err := name.UID(in.UID); err != nil {
		return nil, err
	}
	return accepted(a.d.Chat.Delete(ctx, unwaited(), callOf(ctx).tenant, in.UID, in.Conversation, in.Seq))
}

func (a *api) listContacts(ctx context.Context, in *pageInput) (*contactsOutput, error) {
	if err := name.UID(in.UID); err != nil {
		return nil, err
	}
	page, err := a.d.Chat.Contacts(ctx, callOf(ctx).tenant, in.UID, in.Cursor, in.Limit)
	if err != nil {
		return nil, err
	}
	return &contactsOutput{*page}, nil
}

var contactActs = map[string]conversation.ContactAct{
	"ask": conversation.ContactAsk, "accept": conversation.ContactAccept, "decline": conversation.ContactDecline,
	"remark": conversation.ContactRemark, "join": conversation.ContactJoin,
}

func (a *api) putContact(ctx context.Context, in *contactInput) (*doneOutput, error) {
	act, ok := contactActs[in.Body.Act]
	if !ok {
		return nil, errcode.InvalidRequest.Errorf("act: ask, accept, decline, remark or join")
	}
	return accepted(a.d.Chat.Contact(ctx, unwaited(), callOf(ctx).tenant, in.UID, in.Peer, act, in.Body.Remark, in.Body.Note))
}

func (a *api) removeContact(ctx context.Context, in *peerInput) (*doneOutput, error) {
	return accepted(a.d.Chat.Contact(ctx, unwaited(), callOf(ctx).tenant, in.UID, in.Peer, conversation.ContactRemove, "", ""))
}

func (a *api) listBlocks(ctx context.Context, in *pageInput) (*uidsOutput, error) {
	if err := name.UID(in.UID); err != nil {
		return nil, err
	}
	page, err := a.d.Chat.Blocks(ctx, callOf(ctx).tenant, in.UID, in.Cursor, in.Limit)
	if err != nil {
		return nil, err
	}
	return &uidsOutput{*page}, nil
}

func (a *api) block(ctx context.Context, in *peerInput) (*doneOutput, error) {
	return accepted(a.d.Chat.Block(ctx, unwaited(), callOf(ctx).tenant, in.UID, in.Peer, false))
}

func (a *api) unblock(ctx context.Context, in *peerInput) (*doneOutput, error) {
	return accepted(a.d.Chat.Block(ctx, unwaited(), callOf(ctx).tenant, in.UID, in.Peer, true))
}
