import { useSignal } from "@preact/signals";
import { t } from "../../i18n/index.ts";
import { type Language, language, languages, setLanguage } from "../../i18n/index.ts";
import type { Visibility } from "../../model/types.ts";
import { Avatar } from "../../parts/avatar.tsx";
import { chooseTheme, chosenTheme, type Theme } from "../../theme.ts";
import { allowNotifications, notificationState, notifying } from "../notify.ts";
import { CheckCalls } from "../calls/check.tsx";
import { confirm, Dialog } from "../parts/dialog.tsx";
import { openDialog, run, useClose, useMessenger } from "../ui.ts";

export function SettingsDialog({ onLeave }: { onLeave(): void }) {
  const close = useClose();
  const m = useMessenger();
  const me = m.people.me.value;
  const name = useSignal(me.name);
  const dirty = name.value.trim() !== me.name;
  // Shown until logic has answered, so that whatever else arrives meanwhile doesn't draw the old choice again.
  const asked = useSignal<Visibility | undefined>(undefined);
  const chooseVisibility = async (visibility: Visibility) => {
    asked.value = visibility;
    await run(m.port.updateMe({ visibility }).then((user) => m.people.put([user])), t("saved"));
    if (asked.peek() === visibility) asked.value = undefined;
  };
  const saveName = () => void run(m.port.updateMe({ name: name.value.trim() }).then((user) => m.people.put([user])), t("saved"));
  return (
    <Dialog
      title={t("settings")}
      onSubmit={() => dirty && saveName()}
      foot={
        <button
          type="button"
          class="secondary bad"
          onClick={() =>
            confirm(t("logOutQuestion"), t("logOutText"), t("logOut"), () => {
              close();
              onLeave();
            })
          }
        >
          {t("logOut")}
        </button>
      }
    >
      <section class="settings-me">
        <Avatar name={me.name || me.uid} of={me.uid} image={me.avatar} large />
        <div class="grow">
          <label class="field">
            <span>{t("displayName")}</span>
            <span class="with-button">
              <input maxLength={80} placeholder={me.uid} value={name} onInput={(e) => (name.value = e.currentTarget.value)} />
              <button type="button" class="primary" disabled={!dirty} onClick={saveName}>
                {t("save")}
              </button>
            </span>
          </label>
          <p class="muted mono">{me.uid}</p>
        </div>
      </section>
      <Choice<Visibility>
        label={t("visibility")}
        value={asked.value ?? me.visibility ?? "contacts"}
        options={[
          ["contacts", t("visContacts")],
          ["all", t("visAll")],
          ["nobody", t("visNobody")],
        ]}
        onChange={(visibility) => void chooseVisibility(visibility)}
      />
      <Choice<Theme | "">
        label={t("appearance")}
        value={chosenTheme.value}
        options={[
          ["", t("themeSystem")],
          ["light", t("themeLight")],
          ["dark", t("themeDark")],
        ]}
        onChange={chooseTheme}
      />
      <Choice<Language> label={t("language")} value={language.value} options={Object.entries(languages) as [Language, string][]} onChange={setLanguage} />
      <label class="switch">
        <span>
          {t("notifyOn")}
          {notificationState.value === "denied" && <small>{t("notifyDenied")}</small>}
        </span>
        <input
          type="checkbox"
          role="switch"
          checked={notifying.value}
          disabled={notificationState.value === "denied"}
          onChange={(e) => void allowNotifications(e.currentTarget.checked)}
        />
      </label>
      {m.calls.possible && (
        <button type="button" class="secondary" onClick={() => openDialog(() => <CheckCalls />)}>
          {t("relayTest")}
        </button>
      )}
      <p class="settings-links">
        <span class="muted">{t("developers")}:</span> <a href="./playground">{t("playground")}</a> · <a href="./docs">API</a> ·{" "}
        <a href="./licenses.txt">{t("licenses")}</a>
      </p>
    </Dialog>
  );
}

function Choice<T extends string>({ label, value, options, onChange }: { label: string; value: T; options: [T, string][]; onChange(value: T): void }) {
  return (
    <fieldset class="choice">
      <legend>{label}</legend>
      <div class="choice-options">
        {options.map(([option, text]) => (
          <label key={option}>
            <input type="radio" name={label} checked={option === value} onChange={() => onChange(option)} />
            <span>{text}</span>
          </label>
        ))}
      </div>
    </fieldset>
  );
}
