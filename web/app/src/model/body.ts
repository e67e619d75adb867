// The bodies of messages as this app writes and reads them: text, or an object with text and what belongs to it.
// Whatever else comes is shown as what text it has, or as something that this app can't show.
import type { Entry, Json } from "./types.ts";

/** What a message answers. The text goes along so that it shows even where the message itself isn't loaded. */
export interface Quote {
  seq: number;
  from: string;
  text: string;
}

/** Where a message came from. */
export interface Forwarded {
  from: string;
}

/** A call that is over, as its message tells. */
export interface CallRecord {
  id: string;
  media: "audio" | "video";
  group: boolean;
  outcome: "answered" | "missed" | "declined" | "busy" | "failed";
  reason: string;
  /** Milliseconds. */
  duration: number;
}

export interface Content {
  text: string;
  call?: CallRecord;
  reply?: Quote;
  forwarded?: Forwarded;
  /** Whether the body is of a kind that this app doesn't know. */
  strange: boolean;
}

const quoted = 120;

export function contentOf(body: Json): Content {
  if (typeof body === "string") return { text: body, strange: false };
  if (!isObject(body) || typeof body.text !== "string") return { text: "", strange: true };
  const content: Content = { text: body.text, strange: false };
  const { reply, forwarded } = body;
  if (isObject(reply) && typeof reply.seq === "number" && typeof reply.from === "string" && typeof reply.text === "string") {
    content.reply = { seq: reply.seq, from: reply.from, text: reply.text };
  }
  const call = callOf(body.call);
  if (call) content.call = call;
  if (isObject(forwarded) && typeof forwarded.from === "string") content.forwarded = { from: forwarded.from };
  return content;
}

export function textBody(text: string, reply?: Quote): Json {
  return reply ? { text, reply: { ...reply } } : { text };
}

export function quoteOf(message: Entry): Quote {
  const { text } = contentOf(message.body);
  const short = [...text.replaceAll(/\s+/g, " ")].slice(0, quoted).join("");
  return { seq: message.seq, from: message.from, text: short };
}

/** The body with which a message goes to another conversation: it says who wrote it, and quotes nothing. */
export function forwardBody(message: Entry): Json {
  const content = contentOf(message.body);
  if (content.strange) return message.body;
  return { text: content.text, forwarded: { from: content.forwarded?.from ?? message.from } };
}

/** The same body with another text. */
export function withText(body: Json, text: string): Json {
  return isObject(body) ? { ...body, text } : text;
}

const outcomes = ["answered", "missed", "declined", "busy", "failed"] as const;

function callOf(value: Json | undefined): CallRecord | undefined {
  if (!isObject(value)) return undefined;
  const outcome = outcomes.find((o) => o === value.outcome);
  if (!outcome || typeof value.call !== "string") return undefined;
  return {
    id: value.call,
    media: value.media === "audio" ? "audio" : "video",
    group: value.kind === "group",
    outcome,
    reason: typeof value.reason === "string" ? value.reason : "",
    duration: typeof value.duration_ms === "number" ? value.duration_ms : 0,
  };
}

function isObject(value: Json | undefined): value is { [name: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
