import { useSignal } from "@preact/signals";
import { t } from "../../i18n/index.ts";
import { useFoundUsers } from "../found.ts";
import { Dialog } from "../parts/dialog.tsx";
import { openChat, openDialog, run, toast, useClose, useMessenger } from "../ui.ts";
import { PersonRow } from "./people.tsx";

/** Finds people by name or id. */
export function AddContact() {
  const close = useClose();
  const m = useMessenger();
  const query = useSignal("");
  const found = useFoundUsers(query.value);

  return (
    <Dialog title={t("findPeople")}>
      <input
        type="search"
        class="search-input"
        data-first
        placeholder={t("findHint")}
        aria-label={t("findHint")}
        autocomplete="off"
        autocapitalize="none"
        spellcheck={false}
        value={query}
        onInput={(e) => (query.value = e.currentTarget.value)}
      />
      <div class="results" aria-live="polite">
        {query.value.trim() === "" ? (
          <p class="nothing">{t("findText")}</p>
        ) : found === undefined ? (
          <p class="nothing">{t("loading")}</p>
        ) : found.length === 0 ? (
          <p class="nothing">{t("nothingFound", { q: query.value })}</p>
        ) : (
          found.map((uid) => {
            const contact = m.people.contacts.value.get(uid);
            return (
              <PersonRow key={uid} uid={uid} note={uid}>
                <button
                  type="button"
                  class="secondary"
                  onClick={() => {
                    close();
                    openChat(m, m.directWith(uid));
                  }}
                >
                  {t("message")}
                </button>
                {contact?.state === "accepted" ? (
                  <span class="tag">{t("isContact")}</span>
                ) : contact?.state === "requested" ? (
                  <span class="tag">{t("waitingFor")}</span>
                ) : (
                  <button type="button" class="primary" onClick={() => openDialog(() => <AskContact uid={uid} />)}>
                    {t("ask")}
                  </button>
                )}
              </PersonRow>
            );
          })
        )}
      </div>
    </Dialog>
  );
}

/** Asks somebody to be a contact. */
export function AskContact({ uid }: { uid: string }) {
  const close = useClose();
  const m = useMessenger();
  const note = useSignal(t("askNoteDefault", { a: m.people.me.peek().name || m.me }));
  const remark = useSignal("");
  const name = m.people.name(uid);
  return (
    <Dialog
      narrow
      title={t("askTitle", { a: name })}
      onSubmit={async () => {
        if (await run(m.port.askContact(uid, note.value.trim(), remark.value.trim()), t("asked"))) close();
      }}
      foot={
        <>
          <button type="button" class="secondary" onClick={close}>
            {t("cancel")}
          </button>
          <button type="submit" class="primary">
            {t("ask")}
          </button>
        </>
      }
    >
      <label class="field">
        <span>{t("askNote")}</span>
        <textarea rows={2} maxLength={300} data-first value={note} onInput={(e) => (note.value = e.currentTarget.value)} />
      </label>
      <label class="field">
        <span>
          {t("remark")} <small>{t("remarkHint")}</small>
        </span>
        <input maxLength={80} value={remark} onInput={(e) => (remark.value = e.currentTarget.value)} />
      </label>
    </Dialog>
  );
}

/** Joins a group that is open, or asks to. */
export function JoinGroup() {
  const close = useClose();
  const m = useMessenger();
  const id = useSignal("");
  const note = useSignal("");
  async function submit() {
    const group = id.value.trim();
    try {
      // An open group lets everybody in.
      await m.port.addMembers(group, [m.me]);
      close();
      openChat(m, group);
    } catch {
      if (await run(m.port.askToJoin(group, note.value.trim()))) {
        toast(t("joinAsked"));
        close();
      }
    }
  }
  return (
    <Dialog
      narrow
      title={t("joinGroup")}
      onSubmit={() => void submit()}
      foot={
        <>
          <button type="button" class="secondary" onClick={close}>
            {t("cancel")}
          </button>
          <button type="submit" class="primary" disabled={!id.value.trim().startsWith("g/")}>
            {t("joinAsk")}
          </button>
        </>
      }
    >
      <label class="field">
        <span>{t("groupId")}</span>
        <input data-first class="mono" placeholder={t("joinGroupHint")} autocapitalize="none" spellcheck={false} value={id} onInput={(e) => (id.value = e.currentTarget.value)} />
      </label>
      <label class="field">
        <span>{t("askNote")}</span>
        <textarea rows={2} maxLength={300} value={note} onInput={(e) => (note.value = e.currentTarget.value)} />
      </label>
    </Dialog>
  );
}
