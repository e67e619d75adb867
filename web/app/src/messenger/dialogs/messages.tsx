import { useSignal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { List } from "../parts/list.tsx";
import { t } from "../../i18n/index.ts";
import { contentOf, forwardBody } from "../../model/body.ts";
import { Members, readBy } from "../../model/members.ts";
import type { Entry } from "../../model/types.ts";
import { peerOf } from "../../model/types.ts";
import { Avatar } from "../../parts/avatar.tsx";
import { Dialog } from "../parts/dialog.tsx";
import { toast, useClose, useMessenger } from "../ui.ts";
import { PersonRow } from "./people.tsx";

/** Sends a message on to other conversations. */
export function ForwardMessage({ entry }: { entry: Entry }) {
  const close = useClose();
  const m = useMessenger();
  const query = useSignal("");
  const chosen = useSignal<ReadonlySet<string>>(new Set());
  const q = query.value.trim().toLowerCase();
  const targets = [
    ...m.list.value.map((l) => l.conversation).filter((c) => !c.dissolved && c.type !== "inbox" && c.role !== "none"),
  ].map((c) => ({ id: c.id, title: m.title(c), of: peerOf(c.id, m.me) || c.id }));
  for (const contact of m.people.friends.value) {
    const id = m.directWith(contact.uid);
    if (!targets.some((target) => target.id === id)) targets.push({ id, title: m.people.name(contact.uid), of: contact.uid });
  }
  const found = targets.filter((target) => target.title.toLowerCase().includes(q));
  return (
    <Dialog
      title={t("forwardTo")}
      onSubmit={() => {
        for (const id of chosen.value) m.port.send(id, { body: forwardBody(entry), mentions: [], mentionAll: false });
        toast(t("forwarded", { n: chosen.value.size }));
        close();
      }}
      foot={
        <>
          <button type="button" class="secondary" onClick={close}>
            {t("cancel")}
          </button>
          <button type="submit" class="primary" disabled={chosen.value.size === 0}>
            {t("forward")}
          </button>
        </>
      }
    >
      <blockquote class="quote">{contentOf(entry.body).text || t("strangePreview")}</blockquote>
      <input type="search" class="search-input" data-first placeholder={t("search")} aria-label={t("search")} value={query} onInput={(e) => (query.value = e.currentTarget.value)} />
      <div class="picker-list">
        {found.length > 0 ? (
          <List class="vlist" data={found} itemSize={52}>
            {(target) =>
              (
                <label key={target.id} class="pick">
                  <input
                    type="checkbox"
                    checked={chosen.value.has(target.id)}
                    onChange={() => {
                      const next = new Set(chosen.value);
                      if (!next.delete(target.id)) next.add(target.id);
                      chosen.value = next;
                    }}
                  />
                  <div class="person">
                    <Avatar name={target.title} of={target.of} small />
                    <span class="person-text">
                      <span class="person-name">{target.title}</span>
                    </span>
                  </div>
                </label>
              )
            }
          </List>
        ) : (
          <p class="nothing">{t("nothingFound", { q: query.value })}</p>
        )}
      </div>
    </Dialog>
  );
}

/** Who has read a message of a group, and who hasn't yet: those who have are asked for by themselves, for they are counted even where the others are many. */
export function Readers({ conversation, entry }: { conversation: string; entry: Entry }) {
  const m = useMessenger();
  const [readers] = useState(() => new Members(m, conversation, entry.seq));
  const [members] = useState(() => new Members(m, conversation));
  useEffect(() => {
    void readers.more();
    void members.more();
  }, []);
  const { read, unread, readCount, unreadCount } = readBy({
    seq: entry.seq,
    me: m.me,
    total: m.conversation(conversation)?.members ?? 0,
    readers: readers.items.value,
    allReaders: readers.complete.value,
    members: members.items.value,
    allMembers: members.complete.value,
    told: m.markers.value,
  });
  const asked = readers.items.value.length > 0 || members.items.value.length > 0;
  const sections = [
    ["readHere", read, readCount, readers],
    ["unreadHere", unread, unreadCount, members],
  ] as const;
  return (
    <Dialog narrow title={t("readByTitle")}>
      {!asked && (readers.loading.value || members.loading.value) ? (
        <p class="nothing">{t("loading")}</p>
      ) : (
        sections.map(([label, uids, count, source]) => {
          // With all members there are no more readers either.
          const done = source.complete.value || members.complete.value;
          return (
            (uids.length > 0 || !done) && (
              <section class="readers" key={label}>
                <h3>
                  {t(label)} <span class="figure">{count}</span>
                </h3>
                {uids.map((uid) => (
                  <PersonRow key={uid} uid={uid} />
                ))}
                {!done && (
                  <button type="button" class="plain" disabled={source.loading.value} onClick={() => void source.more()}>
                    {t("more")}
                  </button>
                )}
              </section>
            )
          );
        })
      )}
    </Dialog>
  );
}

/** Who gave a reaction. */
export function Reactors({ conversation, seq, reaction, known }: { conversation: string; seq: number; reaction: string; known: string[] }) {
  const m = useMessenger();
  const uids = useSignal(known);
  useEffect(() => {
    m.port.reactors(conversation, seq, reaction).then(
      (all) => {
        if (all.length > 0) uids.value = all;
      },
      () => {
        // Those who are known stand there.
      },
    );
  }, []);
  return (
    <Dialog narrow title={reaction}>
      {uids.value.map((uid) => (
        <PersonRow key={uid} uid={uid} />
      ))}
    </Dialog>
  );
}
