package rpc

import (
	"context"
	"encoding/json"

	"github.com/halley-im/halley/logic/internal/call/machine"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	entry "github.com/halley-im/halley/store/conversation"
)

// call is one request of a session under way.
type call struct {
	s   *Server
	req *halleyv1.SessionRequest
	// effects on the asking session; handlers add to it by change.
	effects *halleyv1.Effects
	// again asks comet to ask once more when the effects are carried out.
	again bool
}

func (c *call) session() *halleyv1.Session { return c.req.GetSession() }

func (c *call) change() *halleyv1.Effects {
	if c.effects == nil {
		c.effects = &halleyv1.Effects{}
	}
	return c.effects
}

// method is a row of the table of methods.
type method struct {
	// reads says that it changes nothing: op 103 takes it.
	reads bool
	// calls says that it is of calls: op 104 takes it.
	calls bool
	// run carries the method out and returns the result's JSON value.
	run func(ctx context.Context, c *call, args json.RawMessage) (any, error)
}

// handle makes a run of a handler with typed arguments.
func handle[A any](h func(context.Context, *call, *A) (any, error)) func(context.Context, *call, json.RawMessage) (any, error) {
	return func(ctx context.Context, c *call, args json.RawMessage) (any, error) {
		a := new(A)
		if err := json.Unmarshal(args, a); err != nil {
			return nil, errcode.InvalidRequest.Errorf("an argument has the wrong type")
		}
		return h(ctx, c, a)
	}
}

// methods is the table. One file a family.
var methods = map[string]method{
	"room.join":        {run: handle(roomJoin)},
	"room.leave":       {run: handle(roomLeave)},
	"room.send":        {run: handle(sendToRoom)},
	"room.members":     {reads: true, run: handle(listMembers)},
	"session.refresh":  {run: handle(refreshSession)},
	"presence.watch":   {run: handle(watchPresence)},
	"presence.unwatch": {run: handle(unwatchPresence)},

	"message.send":     {run: proposes(entry.Message, send)},
	"message.edit":     {run: proposes(entry.Edit, sayWhat)},
	"message.recall":   {run: proposes(entry.Recall, nil)},
	"message.react":    {run: proposes(entry.Reaction, react)},
	"message.pin":      {run: proposes(entry.Pin, pin)},
	"message.reactors": {reads: true, run: asks(reactors)},
	"message.delete":   {run: handle(deleteMessage)},

	"conversation.list":    {reads: true, run: asks(listConversations)},
	"conversation.get":     {reads: true, run: asks(getConversation)},
	"conversation.history": {reads: true, run: asks(history)},
	"conversation.members": {reads: true, run: asks(conversationMembers)},
	"conversation.pinned":  {reads: true, run: asks(pinned)},
	"conversation.read":    {run: handle(readConversation)},
	"conversation.set":     {run: handle(setConversation)},
	"conversation.open":    {run: handle(openConversation)},
	"typing":               {run: handle(typing)},
	"sync":                 {reads: true, run: asks(syncChat)},
	"sync.cursor":          {reads: true, run: asks(syncCursor)},

	"group.create":   {run: handle(createGroup)},
	"group.add":      {run: changesGroup(entry.Joined, whom)},
	"group.remove":   {run: changesGroup(entry.Removed, whom)},
	"group.leave":    {run: changesGroup(entry.Left, nil)},
	"group.role":     {run: changesGroup(entry.RoleChanged, whichRole)},
	"group.mute":     {run: changesGroup(entry.Muted, untilWhen)},
	"group.info":     {run: changesGroup(entry.InfoChanged, whichInfo)},
	"group.dissolve": {run: changesGroup(entry.Dissolved, nil)},
	"group.ask":      {run: handle(askGroup)},
	"group.answer":   {run: handle(answerGroup)},

	"user.get":       {reads: true, run: asks(getUsers)},
	"user.search":    {reads: true, run: asks(searchUsers)},
	"user.update":    {run: asks(updateUser)},
	"contact.list":   {reads: true, run: asks(listContacts)},
	"contact.ask":    {run: contact(does(conversation.ContactAsk))},
	"contact.answer": {run: contact(answers)},
	"contact.remark": {run: contact(does(conversation.ContactRemark))},
	"contact.remove": {run: contact(does(conversation.ContactRemove))},
	"block.list":     {reads: true, run: asks(listBlocks)},
	"block.set":      {run: handle(setBlock)},

	"call.invite":    {calls: true, run: handle(invite)},
	"call.ringing":   {calls: true, run: commands(machine.DoRinging)},
	"call.accept":    {calls: true, run: commands(machine.DoAccept)},
	"call.decline":   {calls: true, run: commands(machine.DoDecline)},
	"call.cancel":    {calls: true, run: commands(machine.DoCancel)},
	"call.connected": {calls: true, run: commands(machine.DoConnected)},
	"call.update":    {calls: true, run: commands(machine.DoUpdate)},
	"call.hangup":    {calls: true, run: commands(machine.DoHangup)},
	"call.leaving":   {calls: true, run: commands(machine.DoLeaving)},
	"call.add":       {calls: true, run: commands(machine.DoAdd)},
	"call.remove":    {calls: true, run: commands(machine.DoRemove)},
	"call.heartbeat": {calls: true, run: commands(machine.DoHeartbeat)},
	"call.signal":    {calls: true, run: handle(signal)},
	"call.stats":     {calls: true, run: handle(callStats)},
	"call.current":   {calls: true, reads: true, run: handle(currentCalls)},
	"ice.servers":    {calls: true, reads: true, run: handle(iceServers)},
}

func known(name string) bool {
	_, ok := methods[name]
	return ok
}

// Request carries out a frame of a session's client. What went wrong is in the response.
func (s *Server) Request(ctx context.Context, req *halleyv1.SessionRequest) *halleyv1.SessionResponse {
	start := s.d.Now()
	c := &call{s: s, req: req}
	res := &halleyv1.SessionResponse{}
	var (
		label string
		err   error
	)
	switch op := frame.Op(req.GetOp()); {
	case req.GetSession() == nil:
		label, err = "none", errcode.InvalidRequest
		res.Error = errcode.Proto(err)
	case op.IsRequest():
		label, err = s.dispatch(ctx, c, res)
	case op == frame.OpChangeRoom:
		label = op.String()
		// goim echoes the body whatever came of it.
		res.Reply = req.GetBody()
		err = changeRoom(c)
	case op >= frame.OpApplication:
		label = "upstream"
		err = s.upstream(ctx, req)
	default:
		label, err = "other", errcode.InvalidRequest.Errorf("op %d is not logic's", op)
	}
	if err != nil {
		if !frame.Op(req.GetOp()).IsRequest() {
			res.Error = errcode.Proto(err)
		}
		if errcode.From(err).Code == errcode.Internal {
			s.d.Log.ErrorContext(ctx, "request failed", "session", req.GetSession().GetConn().GetId(), "req", label, "err", err)
		}
	} else {
		res.Effects, res.Again = c.effects, c.again
	}
	s.metrics.request(label, s.d.Now().Sub(start), err)
	return res
}

// dispatch carries out a JSON Request; the reply is in res, an error's too.
func (s *Server) dispatch(ctx context.Context, c *call, res *halleyv1.SessionResponse) (label string, err error) {
	label = "unknown"
	var result any
	defer func() {
		if err != nil {
			res.Reply = encode(map[string]any{"error": errorOf(errcode.Proto(err))})
			return
		}
		res.Reply = encode(map[string]any{label: result})
	}()
	if !c.session().GetSigned() {
		return label, errcode.Unauthenticated.Errorf("sessions without a token have no requests")
	}
	name, args, err := parseRequest(c.req.GetBody(), known)
	if err != nil {
		return label, err
	}
	label = name
	m := methods[name]
	switch frame.Op(c.req.GetOp()) {
	case frame.OpRequestUnordered:
		if !m.reads {
			return label, errcode.InvalidRequest.Errorf("op %d is for methods that only read", frame.OpRequestUnordered)
		}
	case frame.OpRequestCall:
		if !m.calls {
			return label, errcode.InvalidRequest.Errorf("op %d is for methods of calls", frame.OpRequestCall)
		}
	}
	result, err = m.run(ctx, c, args)
	return label, err
}
