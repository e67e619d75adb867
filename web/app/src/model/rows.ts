import type { Entry, Outgoing } from "./types.ts";

/** A line of the list of messages. Keys are stable: a message that gets its place keeps its row. */
export type Row =
  | { kind: "day"; key: string; at: number }
  | { kind: "unread"; key: string }
  | { kind: "change"; key: string; entry: Entry }
  | { kind: "message"; key: string; entry: Entry; first: boolean }
  | { kind: "outgoing"; key: string; outgoing: Outgoing; first: boolean };

export interface Sources {
  entries: readonly Entry[];
  outgoing: readonly Outgoing[];
  me: string;
  /** A line that says where the unread ones begin comes after this seq; 0: none. */
  readSeq: number;
  hidden: (seq: number) => boolean;
  /** Whether the end of the conversation is loaded: only there what isn't stored yet has its place. */
  atEnd: boolean;
}

/** One person's messages within this time stand together. */
const together = 5 * 60_000;

export function rowsOf({ entries, outgoing, me, readSeq, hidden, atEnd }: Sources): Row[] {
  const rows: Row[] = [];
  let day = "";
  let from: string | undefined;
  let last = 0;
  let marked = readSeq === 0;
  const began = (at: number) => {
    const d = dayOf(at);
    if (d === day) return;
    day = d;
    from = undefined;
    rows.push({ kind: "day", key: `day-${d}`, at });
  };
  const first = (who: string, at: number) => {
    const new_ = who !== from || at - last > together;
    from = who;
    last = at;
    return new_;
  };
  for (const entry of entries) {
    if (hidden(entry.seq)) continue;
    began(entry.serverTime);
    if (!marked && entry.seq > readSeq && entry.kind === "message") {
      marked = true;
      // One's own begin no unread ones.
      if (entry.from !== me) {
        rows.push({ kind: "unread", key: "unread" });
        from = undefined;
      }
    }
    if (entry.kind === "message" && !entry.recalled) {
      rows.push({ kind: "message", key: keyOf(entry.from, entry.clientMsgId, entry.seq), entry, first: first(entry.from, entry.serverTime) });
    } else {
      from = undefined;
      rows.push({ kind: "change", key: `e-${entry.seq}`, entry });
    }
  }
  if (atEnd) {
    for (const o of outgoing) {
      began(o.at);
      rows.push({ kind: "outgoing", key: keyOf(me, o.id, 0), outgoing: o, first: first(me, o.at) });
    }
  }
  return rows;
}

function keyOf(from: string, clientMsgId: string, seq: number): string {
  return clientMsgId ? `m-${from}-${clientMsgId}` : `e-${seq}`;
}

let cachedDay = "";
let cachedFrom = 0;
let cachedTo = 0;

/** The local day of a time. A hundred thousand rows ask for it: the last one is remembered. */
function dayOf(at: number): string {
  if (at >= cachedFrom && at < cachedTo) return cachedDay;
  const date = new Date(at);
  date.setHours(0, 0, 0, 0);
  cachedFrom = date.getTime();
  cachedDay = `${date.getFullYear()}-${date.getMonth() + 1}-${date.getDate()}`;
  date.setDate(date.getDate() + 1);
  cachedTo = date.getTime();
  return cachedDay;
}
