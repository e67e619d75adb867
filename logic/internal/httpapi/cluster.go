package httpapi

import (
	"context"
	"net"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/remote"
	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Endpoint is where clients reach one comet. What it doesn't offer is left out.
type Endpoint struct {
	WS  string `json:"ws,omitempty" example:"ws://im.example.org:3102/sub"`
	WSS string `json:"wss,omitempty" example:"wss://im.example.org:3103/sub"`
	TCP string `json:"tcp,omitempty" doc:"host:port" example:"im.example.org:3101"`
	TLS string `json:"tls,omitempty" doc:"host:port"`
}

// Comet is a live comet.
type Comet struct {
	Name          string  `json:"name"`
	Epoch         string  `json:"epoch"`
	Addr          string  `json:"addr" doc:"Where job reaches it."`
	Draining      bool    `json:"draining" doc:"Whether it is leaving."`
	Connections   int64   `json:"connections"`
	Addresses     int64   `json:"addresses" doc:"Distinct client addresses."`
	Rooms         int64   `json:"rooms"`
	Capacity      int64   `json:"capacity" doc:"The most connections that it takes."`
	HandshakeRate float64 `json:"handshake_rate" doc:"The most handshakes a second."`
	LeaseDue      int64   `json:"lease_due" doc:"When its lease is due, unless it is renewed."`
	EnrolledAt    int64   `json:"enrolled_at" doc:"When this epoch began."`
	Endpoint
}

type (
	noInput         struct{}
	endpointsOutput struct {
		Body struct {
			Endpoints []Endpoint `json:"endpoints" doc:"In the order in which to try them. Empty: none is live."`
		}
	}
	clusterOutput struct {
		Body struct {
			Version string  `json:"version" doc:"Of the logic that answers."`
			Now     int64   `json:"now" doc:"Its clock."`
			Comets  []Comet `json:"comets"`
		}
	}
)

func (a *api) registerCluster() {
	handle(a, route{public: true}, huma.Operation{
		OperationID: "list-endpoints", Method: http.MethodGet, Path: "/v1/endpoints", Summary: "Where clients connect", Tags: []string{"cluster"},
		Description: "Public addresses of live comets, those with the fewest connections first. Needs no key: clients ask for it.",
	}, a.endpoints)
	handle(a, route{scope: apikey.Read}, huma.Operation{
		OperationID: "get-cluster", Method: http.MethodGet, Path: "/v1/cluster", Summary: "The comets and their load", Tags: []string{"cluster"},
		Description: "Comets don't count by tenant: this is for API keys of all tenants, or of the tenant default.",
	}, a.cluster)
}

func (a *api) endpoints(ctx context.Context, _ *noInput) (*endpointsOutput, error) {
	endpoints, err := a.orderedEndpoints(ctx)
	if err != nil {
		return nil, err
	}
	out := &endpointsOutput{}
	out.Body.Endpoints = endpoints
	return out, nil
}

func (a *api) orderedEndpoints(ctx context.Context) ([]Endpoint, error) {
	comets, err := a.nodes.Ordered(ctx, func(e *halleyv1.Endpoints) bool { return endpointOf(e) != Endpoint{} })
	if err != nil {
		return nil, remote.Error(err)
	}
	endpoints := make([]Endpoint, len(comets))
	for i, c := range comets {
		endpoints[i] = endpointOf(c.GetEndpoints())
	}
	return endpoints, nil
}

func endpointOf(e *halleyv1.Endpoints) Endpoint {
	at := func(port int32) string { return net.JoinHostPort(e.GetHost(), strconv.Itoa(int(port))) }
	var p Endpoint
	if e.GetHost() != "" {
		if n := e.GetWsPort(); n != 0 {
			p.WS = "ws://" + at(n) + "/sub"
		}
		if n := e.GetWssPort(); n != 0 {
			p.WSS = "wss://" + at(n) + "/sub"
		}
		if n := e.GetTcpPort(); n != 0 {
			p.TCP = at(n)
		}
		if n := e.GetTlsPort(); n != 0 {
			p.TLS = at(n)
		}
	}
	// A URL that the operator gave goes before what host and port would make.
	switch u := e.GetWsUrl(); {
	case len(u) > 6 && u[:6] == "wss://":
		p.WSS = u
	case u != "":
		p.WS = u
	}
	return p
}

func (a *api) cluster(ctx context.Context, _ *noInput) (*clusterOutput, error) {
	if !callOf(ctx).key.SeesCluster() {
		return nil, errcode.Forbidden.Errorf("this is of the whole cluster: the API key must be of all tenants")
	}
	comets, err := a.nodes.Live(ctx)
	if err != nil {
		return nil, remote.Error(err)
	}
	out := &clusterOutput{}
	out.Body.Version, out.Body.Now = a.d.Version, a.now().UnixMilli()
	out.Body.Comets = make([]Comet, len(comets))
	for i, c := range comets {
		l := c.GetLoad()
		out.Body.Comets[i] = Comet{
			Name: c.GetComet(), Epoch: c.GetEpoch(), Addr: c.GetAddr(), Draining: c.GetDraining(), Connections: l.GetConnections(), Addresses: l.GetAddresses(),
			Rooms: l.GetRooms(), Capacity: l.GetCapacity(), HandshakeRate: l.GetHandshakeRate(), LeaseDue: c.GetDueMs(), EnrolledAt: c.GetEnrolledAtMs(),
			Endpoint: endpointOf(c.GetEndpoints()),
		}
	}
	return out, nil
}
