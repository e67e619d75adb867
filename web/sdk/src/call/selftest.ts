import type { Line } from "./line.ts";
import { callProblem } from "./media.ts";

/** How a relay is reached. */
export type Way = "udp" | "tcp" | "tls";

/**
 * What is wrong with one address of a relay. unreachable: no answer; refused: it doesn't take the credential; full: no relay is left, or none for this
 * user; no_packets: it gives a relay, and nothing gets through that; failed: none of these.
 */
export type RelayFault = "unreachable" | "refused" | "full" | "no_packets" | "failed";

export interface RelayResult {
  url: string;
  way: Way;
  fault: RelayFault | undefined;
  /** What the browser or the server said. */
  detail: string;
  /** Of a packet over two relays, in milliseconds; 0: none came back. */
  roundTrip: number;
}

/**
 * What is wrong with all of it. none: nothing; no_webrtc, insecure: this page can't call; unasked: the server didn't tell of relays; no_turn: there are
 * none; down: none answers; udp_blocked, tcp_blocked: relays answer by the other one only; tls: only TLS doesn't work; refused, full, no_packets,
 * failed: as RelayFault.
 */
export type RelayProblem = "none" | "no_webrtc" | "insecure" | "unasked" | "no_turn" | "down" | "udp_blocked" | "tcp_blocked" | "tls" | "refused" | "full" | "no_packets" | "failed";

export interface RelayReport {
  problem: RelayProblem;
  results: RelayResult[];
}

export interface SelftestOptions {
  connect?: (config: RTCConfiguration) => RTCPeerConnection;
  /** Milliseconds for one address [12,000]: browsers give up on a silent one after 10 s. */
  limit?: number;
}

/** At most so many addresses are tried. */
const most = 8;

export function wayOf(url: string): Way {
  return url.startsWith("turns:") ? "tls" : /[?&]transport=tcp\b/.test(url) ? "tcp" : "udp";
}

/** Gets a relay at each address that the server tells of, sends a packet over two of them, and names what is wrong. */
export async function testRelays(line: Line, { connect = (config) => new RTCPeerConnection(config), limit = 12_000 }: SelftestOptions = {}): Promise<RelayReport> {
  const cannot = callProblem();
  if (cannot === "no_webrtc" || cannot === "insecure") return { problem: cannot, results: [] };
  let servers: RTCIceServer[];
  try {
    const list = await line.request("ice.servers", {});
    servers = (list.servers ?? []).flatMap(({ urls = [], username = "", credential = "" }) =>
      urls.filter((url) => /^turns?:/.test(url)).map((url) => ({ urls: [url], username, credential })),
    );
  } catch {
    return { problem: "unasked", results: [] };
  }
  const results = await Promise.all(servers.slice(0, most).map((server) => tryOne(server, connect, limit)));
  return { problem: judge(results), results };
}

/** What all results together mean. */
export function judge(results: readonly RelayResult[]): RelayProblem {
  if (results.length === 0) return "no_turn";
  const bad = results.filter((r) => r.fault);
  if (bad.length === 0) return "none";
  const has = (fault: RelayFault) => bad.some((r) => r.fault === fault);
  // A server that says no is there: that comes before who is silent.
  if (has("refused")) return "refused";
  if (has("full")) return "full";
  if (has("no_packets")) return "no_packets";
  const works = (way: Way) => results.some((r) => r.way === way && !r.fault);
  const silent = (way: Way) => results.some((r) => r.way === way) && !works(way);
  if (bad.length === results.length) return has("unreachable") ? "down" : "failed";
  if (silent("udp")) return "udp_blocked";
  if (silent("tcp")) return "tcp_blocked";
  if (silent("tls")) return "tls";
  // Of several servers one is down.
  return has("unreachable") ? "down" : "failed";
}

/** By the codes of STUN and TURN (RFC 8656, section 19); 701 is the browser's for no answer. */
function faultOf(code: number): RelayFault {
  if (code === 401 || code === 403 || code === 438 || code === 441) return "refused";
  if (code === 486 || code === 508) return "full";
  return code === 0 || code === 701 ? "unreachable" : "failed";
}

async function tryOne(server: RTCIceServer, connect: (config: RTCConfiguration) => RTCPeerConnection, limit: number): Promise<RelayResult> {
  const [url = ""] = server.urls as string[];
  const result: RelayResult = { url, way: wayOf(url), fault: undefined, detail: "", roundTrip: 0 };
  const pcs: RTCPeerConnection[] = [];
  let code = 0;
  // Of each end.
  const relays = [0, 0];
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    const config: RTCConfiguration = { iceServers: [server], iceTransportPolicy: "relay" };
    const [near, far] = [connect(config), connect(config)];
    pcs.push(near, far);
    await new Promise<void>((resolve, reject) => {
      timer = setTimeout(resolve, limit);
      let described = () => {};
      const ready = new Promise<void>((done) => (described = done));
      for (const [end, pc, other] of [[0, near, far], [1, far, near]] as const) {
        pc.onicecandidate = ({ candidate }) => {
          if (!candidate?.candidate) return;
          relays[end]!++;
          void ready.then(() => other.addIceCandidate(candidate)).catch(() => {});
        };
        pc.onicecandidateerror = ({ errorCode, errorText }) => {
          // What the server says tells more than that somebody was silent.
          if (code !== 0 && code !== 701) return;
          [code, result.detail] = [errorCode, `${errorCode} ${errorText}`.trim()];
        };
        pc.onicegatheringstatechange = () => {
          // This end was given no relay: there is nothing to wait for.
          if (pc.iceGatheringState === "complete" && relays[end] === 0) resolve();
        };
      }
      far.ondatachannel = ({ channel }) => (channel.onmessage = ({ data }) => channel.send(data as string));
      const channel = near.createDataChannel("relay");
      let sent = 0;
      channel.onopen = () => {
        sent = performance.now();
        channel.send("halley");
      };
      channel.onmessage = () => {
        result.roundTrip = Math.max(1, Math.round(performance.now() - sent));
        resolve();
      };
      (async () => {
        await near.setLocalDescription();
        await far.setRemoteDescription(near.localDescription as RTCSessionDescription);
        await far.setLocalDescription();
        await near.setRemoteDescription(far.localDescription as RTCSessionDescription);
        described();
      })().catch(reject);
    });
    if (result.roundTrip === 0) result.fault = relays.every((n) => n > 0) ? "no_packets" : faultOf(code);
    else result.detail = "";
  } catch (error) {
    [result.fault, result.detail] = ["failed", String(error)];
  } finally {
    clearTimeout(timer);
    for (const pc of pcs) pc.close();
  }
  return result;
}
