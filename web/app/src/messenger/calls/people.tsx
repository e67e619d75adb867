import type { Call } from "@halley-im/sdk/call";
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { t } from "../../i18n/index.ts";
import type { Messenger } from "../../model/messenger.ts";
import type { Conversation } from "../../model/types.ts";
import { PeoplePicker } from "../dialogs/people.tsx";
import { Dialog } from "../parts/dialog.tsx";
import { openDialog, run, useClose, useMessenger } from "../ui.ts";

/** Whom to call of a group with more people than a call takes, or whom to ask into a call. */
function Choose({ title, label, uids, without, onChoose }: { title: string; label: string; uids: readonly string[]; without: ReadonlySet<string>; onChoose(uids: string[]): void }) {
  const close = useClose();
  const chosen = useSignal<Set<string>>(new Set());
  return (
    <Dialog
      title={title}
      onSubmit={() => {
        close();
        onChoose([...chosen.value]);
      }}
      foot={
        <button type="submit" class="primary" disabled={chosen.value.size === 0}>
          {label}
        </button>
      }
    >
      <PeoplePicker uids={uids.filter((uid) => !without.has(uid))} without={without} chosen={chosen.value} onChange={(next) => (chosen.value = next)} />
    </Dialog>
  );
}

/** From each to each: more than so many at once are too much for it. */
const most = 6;

/** Calls all of a conversation; of one with more than a call takes it asks whom. */
export function callAll(m: Messenger, c: Conversation, media: "audio" | "video"): void {
  if (c.type === "group" && c.members > most) openDialog(() => <CallSome conversation={c} media={media} />);
  else void run(m.calls.dial(c.id, media));
}

function CallSome({ conversation: c, media }: { conversation: Conversation; media: "audio" | "video" }) {
  const m = useMessenger();
  const members = useSignal<string[]>([]);
  useEffect(() => {
    m.port.members(c.id, { cursor: "", limit: 200 }).then(
      ({ items }) => {
        m.noteMembers(c.id, items);
        members.value = items.map((member) => member.uid);
      },
      () => {
        // They can be found by their names.
      },
    );
  }, [c.id]);
  const label = t(media === "video" ? "callVideo" : "callAudio");
  return <Choose title={t("callWhom")} label={label} uids={members.value} without={new Set([m.me])} onChoose={(to) => void run(m.calls.dial(c.id, media, to))} />;
}

export function AddToCall({ call }: { call: Call }) {
  const m = useMessenger();
  const there = new Set([m.me, ...call.info.legs.filter((l) => ["invited", "ringing", "accepted", "joined", "away"].includes(l.state)).map((l) => l.uid)]);
  const uids = m.people.friends.value.map((contact) => contact.uid);
  return <Choose title={t("callAdd")} label={t("callAdd")} uids={uids} without={there} onChoose={(all) => void run(call.add(all))} />;
}
