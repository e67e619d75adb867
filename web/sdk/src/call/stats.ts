import type * as wire from "../gen/halley/v1/client.ts";

/** How media flows to and from one other leg. */
export interface Quality {
  level: "good" | "fair" | "poor" | "unknown";
  /** relay: through a TURN server. */
  path: "direct" | "relay" | "unknown";
  roundTrip: number;
  /** 0 to 1. */
  loss: number;
  jitter: number;
  sentBitrate: number;
  receivedBitrate: number;
}

export const unknownQuality: Quality = { level: "unknown", path: "unknown", roundTrip: 0, loss: 0, jitter: 0, sentBitrate: 0, receivedBitrate: 0 };

/** What a report sums up so far. */
export interface Sums {
  at: number;
  sent: number;
  received: number;
  packets: number;
  lost: number;
  frames: number;
  frozen: number;
}

type Row = { [name: string]: unknown; type: string; id: string };

const number = (value: unknown): number => (typeof value === "number" && Number.isFinite(value) ? value : 0);
const string = (value: unknown): string => (typeof value === "string" ? value : "");

/** Digests a report of getStats: what was since the one before (undefined: from the beginning). */
export function digest(uid: string, report: Iterable<[string, unknown]>, before: Sums | undefined, now: number): { peer: wire.CallPeerStats; sums: Sums } {
  const rows = new Map<string, Row>();
  for (const [id, row] of report) rows.set(id, row as Row);
  const sums: Sums = { at: now, sent: 0, received: 0, packets: 0, lost: 0, frames: 0, frozen: 0 };
  let jitter = 0;
  let pair: Row | undefined;
  for (const row of rows.values()) {
    if (row.type === "inbound-rtp") {
      sums.packets += number(row.packetsReceived);
      sums.lost += Math.max(0, number(row.packetsLost));
      sums.frames += number(row.framesDecoded);
      sums.frozen += number(row.totalFreezesDuration);
      jitter = Math.max(jitter, number(row.jitter));
    } else if (row.type === "transport") {
      pair = rows.get(string(row.selectedCandidatePairId)) ?? pair;
    } else if (row.type === "candidate-pair" && !pair && row.nominated === true && row.state === "succeeded") pair = row;
  }
  // Bytes of the pair that carries them; after a restart another one begins at 0.
  sums.sent = number(pair?.bytesSent);
  sums.received = number(pair?.bytesReceived);
  const local = rows.get(string(pair?.localCandidateId));
  const remote = rows.get(string(pair?.remoteCandidateId));
  const since = (name: Exclude<keyof Sums, "at">) => Math.max(0, sums[name] - (before?.[name] ?? 0));
  const seconds = before ? Math.max(0.001, (now - before.at) / 1000) : 0;
  const got = since("packets");
  const lost = since("lost");
  const peer: wire.CallPeerStats = {
    uid,
    loss: got + lost > 0 ? lost / (got + lost) : 0,
    jitter_ms: jitter * 1000,
    round_trip_ms: number(pair?.currentRoundTripTime) * 1000,
    sent_bitrate: seconds ? (since("sent") * 8) / seconds : 0,
    received_bitrate: seconds ? (since("received") * 8) / seconds : 0,
    frames: since("frames"),
    frozen_seconds: since("frozen"),
  };
  if (local) peer.local = string(local.candidateType);
  if (remote) peer.remote = string(remote.candidateType);
  const protocol = string(local?.relayProtocol) || string(local?.protocol);
  if (protocol) peer.protocol = protocol;
  return { peer, sums };
}

/** What people are shown of it. */
export function qualityOf(p: wire.CallPeerStats): Quality {
  const roundTrip = p.round_trip_ms ?? 0;
  const loss = p.loss ?? 0;
  const known = p.local !== undefined || p.remote !== undefined;
  const level = !known ? "unknown" : loss > 0.08 || roundTrip > 500 || (p.frozen_seconds ?? 0) > 3 ? "poor" : loss > 0.025 || roundTrip > 250 ? "fair" : "good";
  return {
    level,
    path: !known ? "unknown" : p.local === "relay" || p.remote === "relay" ? "relay" : "direct",
    roundTrip,
    loss,
    jitter: p.jitter_ms ?? 0,
    sentBitrate: p.sent_bitrate ?? 0,
    receivedBitrate: p.received_bitrate ?? 0,
  };
}

/** What one peer connection of a mesh may send: what a line carries is shared by all of them. */
export interface Budget {
  video: number;
  screen: number;
  audio: number;
  /** Divides width and height of the camera's picture. */
  scale: number;
}

const camera = [1_700_000, 1_000_000, 600_000, 400_000, 300_000];

/** peers: to how many is sent; sharing: a screen goes along, and is what people look at. */
export function budget(peers: number, sharing = false): Budget {
  const n = Math.max(1, Math.min(peers, camera.length));
  const video = camera[n - 1] as number;
  return {
    video: sharing ? Math.min(video, 250_000) : video,
    screen: Math.round(2_500_000 / n),
    audio: n > 3 ? 24_000 : 40_000,
    scale: sharing || n > 3 ? 2.5 : n > 1 ? 1.5 : 1,
  };
}
