import type * as wire from "../gen/halley/v1/client.ts";

export type CallState = "inviting" | "ringing" | "connecting" | "active" | "reconnecting" | "ended";
export type LegState = "invited" | "ringing" | "accepted" | "joined" | "away" | "left" | "declined" | "busy" | "missed" | "cancelled" | "unreachable";

export interface Sends {
  audio: boolean;
  video: boolean;
  screen: boolean;
  hand: boolean;
}

/** One user's part in a call. */
export interface Leg {
  uid: string;
  state: LegState;
  reason: string;
  device: string;
  generation: number;
  /** Of two legs the one with the larger order is polite, and makes the first offer. */
  order: number;
  sends: Sends;
}

/** A call as the server tells it. Times are milliseconds since 1970 by the server's clock; 0: not yet. */
export interface CallInfo {
  id: string;
  version: number;
  kind: "direct" | "group";
  media: "audio" | "video";
  conversation: string;
  caller: string;
  state: CallState;
  reason: string;
  legs: readonly Leg[];
  createdAt: number;
  activeAt: number;
  endedAt: number;
  ringUntil: number;
  /** Its longest time is nearly over. */
  ending: boolean;
  /** The most legs that may be in it at once. */
  limit: number;
}

export function legOf(l: wire.CallLeg): Leg {
  const { audio = false, video = false, screen = false, hand = false } = l.sends ?? {};
  return {
    uid: l.uid ?? "",
    state: (l.state ?? "invited") as LegState,
    reason: l.reason ?? "",
    device: l.device ?? "",
    generation: l.generation ?? 0,
    order: l.order ?? 0,
    sends: { audio, video, screen, hand },
  };
}

export function infoOf(c: wire.Call): CallInfo {
  return {
    id: c.call ?? "",
    version: c.version ?? 0,
    kind: c.kind === "group" ? "group" : "direct",
    media: c.media === "audio" ? "audio" : "video",
    conversation: c.conversation ?? "",
    caller: c.caller ?? "",
    state: (c.state ?? "inviting") as CallState,
    reason: c.reason ?? "",
    legs: (c.legs ?? []).map(legOf),
    createdAt: c.created_at ?? 0,
    activeAt: c.active_at ?? 0,
    endedAt: c.ended_at ?? 0,
    ringUntil: c.ring_until ?? 0,
    ending: c.ending ?? false,
    limit: c.limit ?? 6,
  };
}

export const legIn = (info: CallInfo, uid: string): Leg | undefined => info.legs.find((l) => l.uid === uid);

/** Whether somebody is asked, and has neither answered nor refused. */
export const isAsked = (leg: Leg | undefined): boolean => leg?.state === "invited" || leg?.state === "ringing";

/** Whether somebody is in the call, or away from it for a moment. */
export const isIn = (leg: Leg | undefined): boolean => leg?.state === "accepted" || leg?.state === "joined" || leg?.state === "away";
