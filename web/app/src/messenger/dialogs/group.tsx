import { useSignal } from "@preact/signals";
import { t } from "../../i18n/index.ts";
import type { Messenger } from "../../model/messenger.ts";
import { type Conversation, peerOf } from "../../model/types.ts";
import { Dialog } from "../parts/dialog.tsx";
import { openChat, run, useClose, useMessenger } from "../ui.ts";
import { PeoplePicker } from "./people.tsx";

/** Makes a group of some people. */
export function NewGroup({ with: first = [] }: { with?: string[] }) {
  const close = useClose();
  const m = useMessenger();
  const title = useSignal("");
  const chosen = useSignal<ReadonlySet<string>>(new Set(first));
  const busy = useSignal(false);
  async function submit() {
    if (busy.value || chosen.value.size === 0) return;
    busy.value = true;
    const uids = [...chosen.value];
    await run(
      m.port.createGroup(title.value.trim() || [m.me, ...uids].slice(0, 4).map((uid) => m.people.name(uid)).join(", "), uids).then((id) => {
        close();
        openChat(m, id);
      }),
    );
    busy.value = false;
  }
  return (
    <Dialog
      title={t("newGroup")}
      onSubmit={() => void submit()}
      foot={
        <>
          <span class="grow muted">{chosen.value.size > 0 && t("chosen", { n: chosen.value.size })}</span>
          <button type="button" class="secondary" onClick={close}>
            {t("cancel")}
          </button>
          <button type="submit" class="primary" disabled={chosen.value.size === 0 || busy.value}>
            {t("create")}
          </button>
        </>
      }
    >
      <label class="field">
        <span>{t("groupName")}</span>
        <input maxLength={80} placeholder={t("groupNameHint")} value={title} onInput={(e) => (title.value = e.currentTarget.value)} />
      </label>
      <PeoplePicker uids={[...new Set([...first, ...acquaintances(m)])]} chosen={chosen.value} onChange={(next) => (chosen.value = next)} />
    </Dialog>
  );
}

/** Contacts, and whom the user talks to. */
function acquaintances(m: Messenger): string[] {
  const peers = [...m.conversations.value.keys()].map((id) => peerOf(id, m.me)).filter((uid) => uid !== "");
  return [...new Set([...m.people.friends.value.map((c) => c.uid), ...peers])];
}

export function AddMembers({ conversation, members }: { conversation: string; members: ReadonlySet<string> }) {
  const close = useClose();
  const m = useMessenger();
  const chosen = useSignal<ReadonlySet<string>>(new Set());
  return (
    <Dialog
      title={t("addMembers")}
      onSubmit={async () => {
        if (chosen.value.size > 0 && (await run(m.port.addMembers(conversation, [...chosen.value])))) close();
      }}
      foot={
        <>
          <span class="grow muted">{chosen.value.size > 0 && t("chosen", { n: chosen.value.size })}</span>
          <button type="button" class="secondary" onClick={close}>
            {t("cancel")}
          </button>
          <button type="submit" class="primary" disabled={chosen.value.size === 0}>
            {t("addMembers")}
          </button>
        </>
      }
    >
      <PeoplePicker
        uids={acquaintances(m).filter((uid) => !members.has(uid))}
        without={members}
        chosen={chosen.value}
        onChange={(next) => (chosen.value = next)}
      />
    </Dialog>
  );
}

/** One line, or several, to be changed. */
export function EditText(props: { title: string; label: string; text: string; rows?: number; most: number; empty?: boolean; onSave(text: string): Promise<unknown> }) {
  const close = useClose();
  const text = useSignal(props.text);
  const common = {
    "data-first": true,
    maxLength: props.most,
    value: text.value,
    onInput: (e: { currentTarget: { value: string } }) => (text.value = e.currentTarget.value),
  };
  return (
    <Dialog
      narrow
      title={props.title}
      onSubmit={async () => {
        if (await run(props.onSave(text.value.trim()))) close();
      }}
      foot={
        <>
          <button type="button" class="secondary" onClick={close}>
            {t("cancel")}
          </button>
          <button type="submit" class="primary" disabled={text.value.trim() === props.text || (!props.empty && text.value.trim() === "")}>
            {t("save")}
          </button>
        </>
      }
    >
      <label class="field">
        <span>{props.label}</span>
        {props.rows ? <textarea rows={props.rows} {...common} /> : <input {...common} />}
      </label>
    </Dialog>
  );
}

export function AnnouncementView({ conversation: c }: { conversation: Conversation }) {
  return (
    <Dialog narrow title={t("announcement")}>
      <p class="dialog-text pre">{c.announcement}</p>
    </Dialog>
  );
}
