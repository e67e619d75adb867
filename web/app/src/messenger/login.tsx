import { useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { ApiError, type Endpoint, logIn } from "../api.ts";
import { language, languages, setLanguage, t, why } from "../i18n/index.ts";
import type { Credentials } from "../model/sdk.ts";
import { Sky } from "../parts/sky.tsx";
import { lastName } from "./kept.ts";

interface Props {
  /** What ended the session before, if anything did. */
  notice: string;
  /** stay: until he logs out, in this tab or another. */
  onLogin(credentials: Credentials, endpoints: Endpoint[], stay: boolean): void;
}

/** Whose token it is, as it says itself; the server checks it. */
export function uidOf(token: string): string | undefined {
  try {
    const part = token.split(".")[1]!.replaceAll("-", "+").replaceAll("_", "/");
    const claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (c) => c.charCodeAt(0)))) as Record<string, unknown>;
    return typeof claims.sub === "string" && claims.sub !== "" ? claims.sub : undefined;
  } catch {
    return undefined;
  }
}

/** The door: by name where the server allows that, else by a token. */
export function Login({ notice, onLogin }: Props) {
  const name = useSignal(lastName());
  const token = useSignal("");
  const stay = useSignal(false);
  const busy = useSignal(false);
  const error = useSignal(notice);
  const byHand = useSignal(false);
  const input = useRef<HTMLInputElement & HTMLTextAreaElement>(null);

  useLayoutEffect(() => {
    input.current?.focus();
    // Another name takes its place at once.
    input.current?.select();
  }, [byHand.value]);

  async function submit(event: Event) {
    event.preventDefault();
    if (busy.value) return;
    error.value = "";
    if (byHand.value) {
      const clean = token.value.trim();
      const uid = uidOf(clean);
      if (uid) onLogin({ name: "", uid, token: clean }, [], stay.value);
      else error.value = t("error", { why: t("c_unauthenticated") });
      return;
    }
    busy.value = true;
    try {
      const given = await logIn(name.value.trim());
      onLogin({ name: given.uid, uid: given.uid, token: given.token }, given.endpoints ?? [], stay.value);
    } catch (failure) {
      if (failure instanceof ApiError && (failure.status === 403 || failure.status === 404)) byHand.value = true;
      else error.value = t("error", { why: why(failure) });
    } finally {
      busy.value = false;
    }
  }

  const other = language.value === "zh" ? "en" : "zh";
  return (
    <main class="login">
      <Sky />
      <form class="login-card" onSubmit={submit}>
        <h1>Halley</h1>
        <p class="lead">{t("lead")}</p>
        {byHand.value ? (
          <>
            <p class="hint">
              {t("tokenHint")}
              <code>halley token --uid ann</code>
            </p>
            <label class="field">
              <span>{t("token")}</span>
              <textarea ref={input} rows={3} required spellcheck={false} autocomplete="off" value={token} onInput={(e) => (token.value = e.currentTarget.value)} />
            </label>
          </>
        ) : (
          <label class="field">
            <span>{t("yourName")}</span>
            <input
              ref={input}
              name="name"
              required
              maxLength={64}
              pattern="[A-Za-z0-9._@:\-]+"
              title={t("nameRule")}
              placeholder="ann"
              autocomplete="username"
              autocapitalize="none"
              spellcheck={false}
              value={name}
              onInput={(e) => (name.value = e.currentTarget.value)}
            />
          </label>
        )}
        <label class="stay">
          <input type="checkbox" checked={stay} onChange={(e) => (stay.value = e.currentTarget.checked)} />
          <span>{t("stay")}</span>
        </label>
        <p class="form-error" role="alert">
          {error}
        </p>
        <button class="primary" type="submit" disabled={busy.value}>
          {t(busy.value ? "oneMoment" : byHand.value ? "connect" : "comeIn")}
        </button>
        <div class="login-more">
          <button class="plain" type="button" onClick={() => (byHand.value = !byHand.value)}>
            {t(byHand.value ? "byName" : "haveToken")}
          </button>
          <button class="plain" type="button" lang={other} onClick={() => setLanguage(other)}>
            {languages[other]}
          </button>
        </div>
      </form>
    </main>
  );
}
