import type { Conversation, Entry, Outgoing, Stage } from "../model/types.ts";
import { language, t, why } from "../i18n/index.ts";
import { clock, exact } from "../i18n/time.ts";
import { contentOf } from "../model/body.ts";
import type { Messenger } from "../model/messenger.ts";
import { Alert, Check, CheckTwice, Clock, Copy, Dots, Eye, Forward, Pen, Pin, Reply, Smile, Trash, Undo } from "../parts/icons.tsx";
import { Record } from "./calls/record.tsx";
import { ForwardMessage, Reactors, Readers } from "./dialogs/messages.tsx";
import { quick, used } from "./emoji.ts";
import { namesOf } from "./mention.ts";
import { recalled } from "./messages.tsx";
import { confirm } from "./parts/dialog.tsx";
import { closeMenu, type Item, openMenu } from "./parts/menu.tsx";
import { isBig, Text } from "./parts/text.tsx";
import { quoteText } from "./preview.ts";
import { composing, copy, names, openChat, openDialog, openPerson, run, useMessenger } from "./ui.ts";

/** A stored message with what belongs to it. */
export function Bubble({ entry, conversation: c, name, named }: { entry: Entry; conversation: Conversation; name: string; named: boolean }) {
  const m = useMessenger();
  const content = contentOf(entry.body);
  const mine = entry.from === m.me;
  const big = !content.reply && !content.forwarded && isBig(content.text);
  const tellsMe = entry.mentionAll || entry.mentions.includes(m.me);
  const stage: Stage | undefined = mine && c.type === "direct" ? (c.peerReadSeq >= entry.seq ? "read" : c.peerDeliveredSeq >= entry.seq ? "delivered" : "stored") : undefined;
  const label = `${name}, ${clock(entry.serverTime)}`;
  const writable = !c.dissolved && c.role !== "none" && c.type !== "inbox";
  const menu = (event: MouseEvent | KeyboardEvent) => openMenu(event, t("actions"), actions(m, c, entry, writable), writable && <QuickReactions entry={entry} conversation={c} />);

  return (
    <div class="bubble-box" role="group" aria-label={label}>
      {named && (
        <button type="button" class="sender" tabIndex={-1} onClick={() => entry.from && openPerson(entry.from)}>
          {name}
        </button>
      )}
      <div
        class={`bubble${big ? " big" : ""}${tellsMe && !mine ? " for-me" : ""}`}
        onContextMenu={(e) => {
          // Where text is selected, or on a link, the browser's own menu is wanted.
          if (getSelection()?.toString() || (e.target instanceof Element && e.target.closest("a"))) return;
          menu(e);
        }}
        onDblClick={() => writable && (composing.value = { kind: "reply", conversation: c.id, entry })}
      >
        {content.forwarded && (
          <p class="forwarded">
            <Forward />
            {t("forwardedFrom", { a: m.people.name(content.forwarded.from) })}
          </p>
        )}
        {content.reply && (
          <button type="button" class="quote" onClick={() => openChat(m, c.id, content.reply!.seq)}>
            <strong>{m.people.name(content.reply.from)}</strong>
            <span>{quoteText(m, c.id, content.reply)}</span>
          </button>
        )}
        {content.call ? (
          <Record call={content.call} conversation={c} mine={mine} />
        ) : content.strange ? (
          <p class="text strange">{t("strange")}</p>
        ) : (
          <p class="text">
            <Text text={content.text} mentions={namesOf(m, entry).map(({ uid, name }) => ({ name, me: uid === "" || uid === m.me }))} />
          </p>
        )}
        <span class="meta">
          {entry.pinned && (
            <span title={t("pinnedMark")}>
              <Pin />
              <span class="aside">{t("pinnedMark")}</span>
            </span>
          )}
          {entry.edited && <span>{t("edited")}</span>}
          <time dateTime={new Date(entry.serverTime).toISOString()} title={exact(entry.serverTime)}>
            {clock(entry.serverTime)}
          </time>
          {stage && <StageMark stage={stage} />}
          {mine && c.type === "group" && <GroupRead conversation={c} entry={entry} />}
        </span>
      </div>
      {entry.reactions.length > 0 && (
        <ul class="reactions">
          {entry.reactions.map((r) => {
            const own = r.uids.includes(m.me);
            return (
              <li key={r.reaction}>
                <button
                  type="button"
                  class="reaction"
                  aria-pressed={own}
                  aria-label={t("reactionsOf", { e: r.reaction, n: r.count })}
                  title={t("reaction", { e: r.reaction, names: names(m, r.uids, 8) })}
                  disabled={!writable}
                  onClick={() => void run(m.port.react(c.id, entry.seq, r.reaction, !own))}
                  onContextMenu={(e) => {
                    e.preventDefault();
                    openDialog(() => <Reactors conversation={c.id} seq={entry.seq} reaction={r.reaction} known={r.uids} />);
                  }}
                >
                  {r.reaction} <span>{r.count}</span>
                </button>
              </li>
            );
          })}
        </ul>
      )}
      <span class="tools">
        {writable && (
          <>
            <button
              type="button"
              class="tool"
              aria-label={t("react")}
              title={t("react")}
              onClick={(e) => openMenu(e, t("react"), [], <QuickReactions entry={entry} conversation={c} />)}
            >
              <Smile />
            </button>
            <button type="button" class="tool" aria-label={t("reply")} title={t("reply")} onClick={() => (composing.value = { kind: "reply", conversation: c.id, entry })}>
              <Reply />
            </button>
          </>
        )}
        <button type="button" class="tool" aria-label={t("actions")} title={t("actions")} aria-haspopup="menu" onClick={menu}>
          <Dots />
        </button>
      </span>
    </div>
  );
}

function QuickReactions({ entry, conversation: c }: { entry: Entry; conversation: Conversation }) {
  const m = useMessenger();
  return (
    <div class="quick" role="group" aria-label={t("react")}>
      {quick.map((emoji) => {
        const own = entry.reactions.some((r) => r.reaction === emoji && r.uids.includes(m.me));
        return (
          <button
            type="button"
            key={emoji}
            role="menuitemcheckbox"
            class="quick-one"
            tabIndex={-1}
            aria-label={t("reactWith", { e: emoji })}
            aria-checked={own}
            onClick={() => {
              closeMenu();
              used(language.peek(), emoji);
              void run(m.port.react(c.id, entry.seq, emoji, !own));
            }}
          >
            {emoji}
          </button>
        );
      })}
    </div>
  );
}

function actions(m: Messenger, c: Conversation, entry: Entry, writable: boolean): Item[] {
  const mine = entry.from === m.me;
  const manages = c.role === "owner" || c.role === "admin";
  const content = contentOf(entry.body);
  const items: Item[] = [];
  if (writable) items.push({ label: t("reply"), icon: <Reply />, run: () => (composing.value = { kind: "reply", conversation: c.id, entry }) });
  items.push({ label: t("forward"), icon: <Forward />, run: () => openDialog(() => <ForwardMessage entry={entry} />) });
  if (!content.strange) {
    items.push({ label: t("copy"), icon: <Copy />, run: () => copy(content.text) });
  }
  if (mine && writable && !content.strange) items.push({ label: t("edit"), icon: <Pen />, run: () => (composing.value = { kind: "edit", conversation: c.id, entry }) });
  if (writable && (c.type === "direct" || manages)) {
    items.push({ label: t(entry.pinned ? "unpin" : "pin"), icon: <Pin />, run: () => void run(m.port.pin(c.id, entry.seq, !entry.pinned)) });
  }
  if (c.type === "group") items.push({ label: t("readByTitle"), icon: <Eye />, run: () => openDialog(() => <Readers conversation={c.id} entry={entry} />) });
  if (writable && (mine || (c.type === "group" && manages))) {
    items.push({
      label: t("recall"),
      icon: <Undo />,
      bad: true,
      run: () =>
        confirm(t("recallQuestion"), t("recallText"), t("recall"), () => {
          // Before it happens: the row that offers to write it anew may be drawn before the answer is heard of.
          if (mine) recalled.set(`${c.id}/${entry.seq}`, entry);
          return m.port.recall(c.id, entry.seq);
        }),
    });
  }
  items.push({ label: t("deleteForMe"), icon: <Trash />, bad: true, run: () => void run(m.port.delete(c.id, entry.seq)) });
  return items;
}

const stages = { sending: "sending", accepted: "sending", stored: "sent", delivered: "delivered", read: "read", failed: "notSent" } as const;

/** How far a message has come, in a direct conversation. */
function StageMark({ stage, offline }: { stage: Stage; offline?: boolean }) {
  const label = offline && stage === "sending" ? t("waiting") : t(stages[stage]);
  return (
    <span class={`stage ${stage}`} title={label}>
      {stage === "read" || stage === "delivered" ? <CheckTwice /> : stage === "stored" ? <Check /> : stage === "failed" ? <Alert /> : <Clock />}
      <span class="aside">{label}</span>
    </span>
  );
}

/** How many of a group have read one's own message, as far as markers were told; a click asks. */
function GroupRead({ conversation: c, entry }: { conversation: Conversation; entry: Entry }) {
  const m = useMessenger();
  let n = 0;
  for (const [uid, seq] of m.markers.value) if (uid !== m.me && seq >= entry.seq) n++;
  return (
    <button type="button" class="read-by" tabIndex={-1} title={t("readByTitle")} onClick={() => openDialog(() => <Readers conversation={c.id} entry={entry} />)}>
      {n > 0 && n >= c.members - 1 ? <CheckTwice /> : <Check />}
      {n > 0 && <span aria-hidden="true">{n}</span>}
      <span class="aside">{n > 0 ? t("readBy", { n }) : t("readByTitle")}</span>
    </button>
  );
}

/** A message that has no place yet. */
export function OutgoingBubble({ outgoing: o }: { outgoing: Outgoing }) {
  const m = useMessenger();
  const content = contentOf(o.body);
  const failed = o.stage === "failed";
  return (
    <div class="bubble-box" role="group">
      <div class={`bubble unsent${isBig(content.text) && !content.reply ? " big" : ""}`}>
        {content.reply && (
          <span class="quote">
            <strong>{m.people.name(content.reply.from)}</strong>
            <span>{quoteText(m, o.conversation, content.reply)}</span>
          </span>
        )}
        <p class="text">
          <Text text={content.text} />
        </p>
        <span class="meta">
          <time dateTime={new Date(o.at).toISOString()}>{clock(o.at)}</time>
          <StageMark stage={o.stage} offline={m.connection.value.name !== "online"} />
        </span>
      </div>
      {failed && (
        <p class="unsent-note" role="alert">
          <span>{t("failed", { why: why(o.error) })}</span>
          <button type="button" class="plain" onClick={() => m.port.resend(o.id)}>
            {t("resend")}
          </button>
          <button type="button" class="plain" onClick={() => m.port.discard(o.id)}>
            {t("discard")}
          </button>
        </p>
      )}
    </div>
  );
}

