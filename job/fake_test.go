package job_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// serve runs a gRPC server on a free loopback port and returns its address.
func serve(t testing.TB, register func(*grpc.Server)) (*grpc.Server, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.WaitForHandlers(true))
	register(s)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(ln) })
	t.Cleanup(func() {
		s.Stop()
		wg.Wait()
	})
	return s, ln.Addr().String()
}

func dial(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// seat is where router believes a session to be.
type seat struct{ epoch, conn string }

// router is a fake router: it tells what the test wrote into it.
type router struct {
	halleyv1.UnimplementedRouterServer
	t    testing.TB
	addr string

	mu        sync.Mutex
	comets    map[string]*halleyv1.CometInfo // live, by epoch
	seats     map[string][]seat              // by "tenant/kind/name"
	rooms     map[string][]string            // epochs by "tenant/room"
	byName    map[string]bool                // epochs without markers
	away      bool
	learning  bool
	condemned []string
	locates   int
	names     int
}

func startRouter(t testing.TB) *router {
	r := &router{t: t, comets: map[string]*halleyv1.CometInfo{}, seats: map[string][]seat{}, rooms: map[string][]string{}, byName: map[string]bool{}}
	_, r.addr = serve(t, func(s *grpc.Server) { halleyv1.RegisterRouterServer(s, r) })
	return r
}

// with changes what the router tells.
func (r *router) with(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *router) seat(tenant, kind, name, epoch, conn string) {
	r.with(func() {
		k := tenant + "/" + kind + "/" + name
		r.seats[k] = append(r.seats[k], seat{epoch, conn})
	})
}

func (r *router) unseat(tenant, kind, name string) {
	r.with(func() { delete(r.seats, tenant+"/"+kind+"/"+name) })
}

// die takes an epoch out of the live ones; what lay there is not found any more.
func (r *router) die(epoch string) {
	r.with(func() { delete(r.comets, epoch) })
}

func (r *router) Locate(_ context.Context, req *halleyv1.LocateRequest) (*halleyv1.LocateResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.locates++
	r.names += len(req.GetNames())
	if r.away {
		return nil, status.Error(codes.Unavailable, "away")
	}
	if r.learning {
		return &halleyv1.LocateResponse{UnavailableMs: 20}, nil
	}
	resp := &halleyv1.LocateResponse{}
	index := map[string]uint32{}
	at := func(epoch string) (uint32, bool) {
		info := r.comets[epoch]
		if info == nil {
			return 0, false
		}
		if i, ok := index[epoch]; ok {
			return i, true
		}
		index[epoch] = uint32(len(resp.Comets))
		resp.Comets = append(resp.Comets, info)
		return index[epoch], true
	}
	for _, n := range req.GetNames() {
		loc := &halleyv1.Located{}
		var seats []seat
		switch v := n.GetName().(type) {
		case *halleyv1.Name_Uid:
			seats = r.seats[n.GetTenant()+"/uid/"+v.Uid]
		case *halleyv1.Name_Key:
			seats = r.seats[n.GetTenant()+"/key/"+v.Key]
		case *halleyv1.Name_Room:
			for _, e := range r.rooms[n.GetTenant()+"/"+v.Room] {
				if i, ok := at(e); ok {
					loc.Places = append(loc.Places, &halleyv1.Place{Comet: i})
				}
			}
		case *halleyv1.Name_All:
			for e := range r.comets {
				i, _ := at(e)
				loc.Places = append(loc.Places, &halleyv1.Place{Comet: i})
			}
		}
		for _, s := range seats {
			i, ok := at(s.epoch)
			if !ok {
				continue
			}
			k := slices.IndexFunc(loc.Places, func(p *halleyv1.Place) bool { return p.Comet == i })
			if k < 0 {
				k = len(loc.Places)
				loc.Places = append(loc.Places, &halleyv1.Place{Comet: i})
			}
			loc.Places[k].ConnIds = append(loc.Places[k].ConnIds, s.conn)
		}
		if n.GetUid() != "" || n.GetKey() != "" {
			for e := range r.byName {
				i, ok := at(e)
				if !ok {
					continue
				}
				k := slices.IndexFunc(loc.Places, func(p *halleyv1.Place) bool { return p.Comet == i })
				if k < 0 {
					k = len(loc.Places)
					loc.Places = append(loc.Places, &halleyv1.Place{Comet: i})
				}
				loc.Places[k].ByName = true
			}
		}
		resp.Located = append(resp.Located, loc)
	}
	return resp, nil
}

func (r *router) Condemn(_ context.Context, req *halleyv1.CondemnRequest) (*halleyv1.CondemnResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.condemned = append(r.condemned, req.GetEpoch())
	delete(r.comets, req.GetEpoch())
	return &halleyv1.CondemnResponse{}, nil
}

func (r *router) condemnedEpochs() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.condemned)
}

// got is what a session of a fake comet received.
type got struct {
	id   string
	body string
}

// cometServer is a fake comet: sessions are connection ids with names; what is delivered is kept by connection.
type cometServer struct {
	halleyv1.UnimplementedCometServer
	t    testing.TB
	r    *router
	name string
	addr string
	srv  *grpc.Server

	mu       sync.Mutex
	cond     *sync.Cond
	epoch    string
	hold     bool                       // reads and delivers nothing
	deaf     bool                       // delivers, but does not acknowledge
	sessions map[string]map[string]bool // connection id → names "tenant/kind/name" or "tenant/room/…"
	pending  map[string]bool            // connection ids of those that have no names yet
	received map[string][]got           // by connection id
	raw      []*halleyv1.Delivery
	messages int
	streams  int
	stuck    int // of the streams, the first so many read nothing
	breaking chan struct{}
}

func startComet(t testing.TB, r *router, name string) *cometServer {
	c := &cometServer{t: t, r: r, name: name, sessions: map[string]map[string]bool{}, pending: map[string]bool{}, received: map[string][]got{}, breaking: make(chan struct{})}
	c.cond = sync.NewCond(&c.mu)
	c.srv, c.addr = serve(t, func(s *grpc.Server) { halleyv1.RegisterCometServer(s, c) })
	c.enroll()
	// Whoever is held must let go before the server can stop.
	t.Cleanup(func() { c.with(func() { c.hold, c.deaf, c.stuck = false, false, 0 }) })
	return c
}

func (c *cometServer) with(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	c.cond.Broadcast()
}

// enroll takes a new epoch and tells router.
func (c *cometServer) enroll() {
	epoch := uuid.Must(uuid.NewV7()).String()
	c.with(func() { c.epoch = epoch })
	c.r.with(func() { c.r.comets[epoch] = &halleyv1.CometInfo{Comet: c.name, Epoch: epoch, Addr: c.addr} })
}

// breakStreams ends all streams.
func (c *cometServer) breakStreams() {
	c.with(func() {
		close(c.breaking)
		c.breaking = make(chan struct{})
	})
}

// kill stops the comet for good, without telling router.
func (c *cometServer) kill() { c.srv.Stop() }

// login makes a session of a uid, with key = conn, and tells router.
func (c *cometServer) login(tenant, uid, conn string, rooms ...string) {
	names := map[string]bool{tenant + "/uid/" + uid: true, tenant + "/key/" + conn: true}
	for _, room := range rooms {
		names[tenant+"/room/"+room] = true
	}
	c.with(func() { c.sessions[conn] = names })
	c.register(tenant, uid, conn, rooms...)
}

// register tells router of a session.
func (c *cometServer) register(tenant, uid, conn string, rooms ...string) {
	c.r.seat(tenant, "uid", uid, c.epoch, conn)
	c.r.seat(tenant, "key", conn, c.epoch, conn)
	for _, room := range rooms {
		c.r.with(func() {
			k := tenant + "/" + room
			if !slices.Contains(c.r.rooms[k], c.epoch) {
				c.r.rooms[k] = append(c.r.rooms[k], c.epoch)
			}
		})
	}
}

// bodies returns what a connection received, in order.
func (c *cometServer) bodies(conn string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var bs []string
	for _, g := range c.received[conn] {
		bs = append(bs, g.body)
	}
	return bs
}

func (c *cometServer) deliveries() []*halleyv1.Delivery {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.raw)
}

func (c *cometServer) Deliver(stream grpc.BidiStreamingServer[halleyv1.DeliverRequest, halleyv1.DeliverResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	c.mu.Lock()
	epoch, breaking := c.epoch, c.breaking
	c.streams++
	number := c.streams
	c.mu.Unlock()
	if first.GetHello() == nil {
		return status.Error(codes.InvalidArgument, "no hello")
	}
	if first.GetHello().GetEpoch() != epoch {
		return status.Error(codes.FailedPrecondition, "other epoch")
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.with(func() {}) })
	defer stop()
	reqs := make(chan *halleyv1.DeliverRequest)
	go func() { // ends with the stream, which ends when this handler returns
		for {
			c.mu.Lock()
			for (c.hold || number <= c.stuck) && ctx.Err() == nil {
				c.cond.Wait()
			}
			c.mu.Unlock()
			req, err := stream.Recv()
			if err != nil {
				done <- err
				return
			}
			select {
			case reqs <- req:
			case <-ctx.Done():
				return
			}
		}
	}()
	next := uint64(1)
	for {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-breaking:
			return status.Error(codes.Unavailable, "broken by test")
		case req := <-reqs:
			resp, err := c.take(req.GetBatch().GetDeliveries(), &next, epoch)
			if err != nil {
				return err
			}
			if resp != nil {
				if err := stream.Send(resp); err != nil {
					return err
				}
			}
		}
	}
}

// take delivers a batch and returns the acknowledgement.
func (c *cometServer) take(ds []*halleyv1.Delivery, next *uint64, epoch string) (*halleyv1.DeliverResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch != epoch {
		return nil, status.Error(codes.FailedPrecondition, "other epoch")
	}
	c.messages++
	resp := &halleyv1.DeliverResponse{}
	for _, d := range ds {
		if d.GetNumber() != *next {
			c.t.Errorf("comet %s: delivery has number %d, want %d", c.name, d.GetNumber(), *next)
		}
		*next++
		c.raw = append(c.raw, d)
		reached := 0
		put := func(conn string) {
			if rooms := d.GetControl().GetRooms(); rooms != nil {
				c.change(d.GetTenant(), conn, rooms)
				return
			}
			for _, uid := range d.GetExcludeUids() {
				if c.sessions[conn][d.GetTenant()+"/uid/"+uid] {
					return
				}
			}
			c.received[conn] = append(c.received[conn], got{d.GetId(), string(d.GetPush().GetBody())})
			reached++
		}
		var missing []string
		byName := len(d.GetUids())+len(d.GetKeys()) > 0
		for _, conn := range d.GetConnIds() {
			if byName && c.sessions[conn] != nil {
				continue // below, unless its log-in is under way
			}
			if byName && c.pending[conn] {
				put(conn)
				continue
			}
			if c.sessions[conn] == nil {
				missing = append(missing, conn)
				continue
			}
			put(conn)
		}
		for conn, names := range c.sessions {
			hit := d.GetAll() || d.GetRoom() != "" && names[d.GetTenant()+"/room/"+d.GetRoom()]
			for _, u := range d.GetUids() {
				hit = hit || names[d.GetTenant()+"/uid/"+u]
			}
			for _, k := range d.GetKeys() {
				hit = hit || names[d.GetTenant()+"/key/"+k]
			}
			if hit {
				put(conn)
			}
		}
		if missing != nil && !byName {
			resp.NotHeld = append(resp.NotHeld, &halleyv1.NotHeld{Number: d.GetNumber(), ConnIds: missing})
		} else if reached == 0 {
			resp.Nobody = append(resp.Nobody, d.GetNumber())
		}
		resp.Acked = d.GetNumber()
		resp.Reached += uint64(reached)
	}
	if c.deaf {
		return nil, nil
	}
	return resp, nil
}

// change puts a session into rooms and out of others, with mu held.
func (c *cometServer) change(tenant, conn string, rooms *halleyv1.RoomsChange) {
	for _, room := range rooms.GetJoin() {
		c.sessions[conn][tenant+"/room/"+room] = true
	}
	for _, room := range rooms.GetLeave() {
		delete(c.sessions[conn], tenant+"/room/"+room)
	}
	c.r.with(func() {
		for _, room := range append(rooms.GetJoin(), rooms.GetLeave()...) {
			k := tenant + "/" + room
			c.r.rooms[k] = slices.DeleteFunc(c.r.rooms[k], func(e string) bool { return e == c.epoch })
			for _, names := range c.sessions {
				if names[tenant+"/room/"+room] {
					c.r.rooms[k] = append(c.r.rooms[k], c.epoch)
					break
				}
			}
		}
	})
}

// inRoom reports whether a session is in a room.
func (c *cometServer) inRoom(conn, tenant, room string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sessions[conn][tenant+"/room/"+room]
}

func conn(n int) string { return fmt.Sprintf("f00d.%d", n) }

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }
