package goim

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// mostNodes is how many nodes a client is told, as in goim.
const mostNodes = 5

// weighted is what goim tells a client that asks where to connect.
type weighted struct {
	Domain       string   `json:"domain,omitempty"`
	TCPPort      int32    `json:"tcp_port,omitempty"`
	WSPort       int32    `json:"ws_port,omitempty"`
	WSSPort      int32    `json:"wss_port,omitempty"`
	Heartbeat    int32    `json:"heartbeat,omitempty"`
	Nodes        []string `json:"nodes,omitempty"`
	Backoff      *backoff `json:"backoff,omitempty"`
	HeartbeatMax int32    `json:"heartbeat_max,omitempty"`
}

type backoff struct {
	MaxDelay  int32   `json:"max_delay,omitempty"`
	BaseDelay int32   `json:"base_delay,omitempty"`
	Factor    float32 `json:"factor,omitempty"`
	Jitter    float32 `json:"jitter,omitempty"`
}

// goim's own figures, in seconds.
var clientBackoff = &backoff{MaxDelay: 300, BaseDelay: 3, Factor: 1.8, Jitter: 0.3}

// nodesWeighted tells up to five nodes, fewest connections first. goim has one set of ports for all nodes: the first node's
// are told, and only nodes with the same ones.
func (h *Handler) nodesWeighted(w http.ResponseWriter, r *http.Request, _ Caller) {
	var platform text
	_ = query(r.URL.RawQuery, func(k, v string) error {
		if k == "platform" {
			platform.take(v)
		}
		return nil
	})
	web := platform.value == "web"
	comets, err := h.d.Nodes.Ordered(r.Context(), func(e *halleyv1.Endpoints) bool {
		if web {
			return e.GetHost() != "" && (e.GetWsPort() != 0 || e.GetWssPort() != 0)
		}
		return e.GetHost() != "" && (e.GetTcpPort() != 0 || e.GetWsPort() != 0 || e.GetWssPort() != 0)
	})
	if err != nil {
		h.routerFailed(w, r, err)
		return
	}
	data := weighted{
		Domain: h.cfg.Domain, TCPPort: h.cfg.TCPPort, WSPort: h.cfg.WSPort, WSSPort: h.cfg.WSSPort,
		Heartbeat: int32(h.cfg.Heartbeat / time.Second), Backoff: clientBackoff, HeartbeatMax: h.cfg.HeartbeatMax,
	}
	if len(comets) == 0 {
		data.Nodes = []string{h.cfg.Domain}
		h.data(w, r, data)
		return
	}
	first := comets[0].GetEndpoints()
	data.TCPPort, data.WSPort, data.WSSPort = first.GetTcpPort(), first.GetWsPort(), first.GetWssPort()
	told := map[string]bool{}
	for _, c := range comets {
		e := c.GetEndpoints()
		if e.GetTcpPort() != data.TCPPort || e.GetWsPort() != data.WSPort || e.GetWssPort() != data.WSSPort {
			continue
		}
		node := e.GetHost()
		if web && h.cfg.HostSuffix != "" {
			node = c.GetComet() + h.cfg.HostSuffix
		}
		if told[node] {
			continue
		}
		told[node] = true
		if data.Nodes = append(data.Nodes, node); len(data.Nodes) == mostNodes {
			break
		}
	}
	h.data(w, r, data)
}

// instance is a comet as goim's discovery knew it.
type instance struct {
	Region          string            `json:"region"`
	Zone            string            `json:"zone"`
	Env             string            `json:"env"`
	AppID           string            `json:"appid"`
	Hostname        string            `json:"hostname"`
	Addrs           []string          `json:"addrs"`
	Version         string            `json:"version"`
	LatestTimestamp int64             `json:"latest_timestamp"`
	Metadata        map[string]string `json:"metadata"`
}

func (h *Handler) nodesInstances(w http.ResponseWriter, r *http.Request, c Caller) {
	if !c.SeesCluster {
		refuse(w, errWhole, false)
		return
	}
	comets, err := h.d.Nodes.Live(r.Context())
	if err != nil {
		h.routerFailed(w, r, err)
		return
	}
	if len(comets) == 0 {
		h.data(w, r, null)
		return
	}
	list := make([]instance, len(comets))
	for i, c := range comets {
		var public []string
		if host := c.GetEndpoints().GetHost(); host != "" {
			public = []string{host}
		}
		list[i] = instance{
			Region: h.cfg.Region, Zone: h.cfg.Zone, Env: h.cfg.Env, AppID: "goim.comet", Hostname: c.GetComet(),
			Addrs: []string{"grpc://" + c.GetAddr()}, LatestTimestamp: c.GetEnrolledAtMs() * int64(time.Millisecond),
			Metadata: map[string]string{
				// Halley sends clients by connections alone; goim's example weight says that all are alike.
				"weight": "10", "offline": strconv.FormatBool(c.GetDraining()), "addrs": strings.Join(public, ","),
				"conn_count": strconv.FormatInt(c.GetLoad().GetConnections(), 10), "ip_count": strconv.FormatInt(c.GetLoad().GetAddresses(), 10),
			},
		}
	}
	h.data(w, r, list)
}
