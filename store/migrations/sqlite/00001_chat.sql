-- The same tables as in ../mysql. Text is compared by its bytes (BINARY, the default). What MySQL
-- bounds by types is bounded by checks here: SQLite knows no lengths.
--
-- +goose Up

-- Divided by conversation.

CREATE TABLE IF NOT EXISTS conversations (
  tenant         TEXT     NOT NULL CHECK (octet_length(tenant) <= 32),
  conversation   TEXT     NOT NULL CHECK (octet_length(conversation) <= 131),
  type           INTEGER  NOT NULL,
  dissolved      INTEGER  NOT NULL,
  title          TEXT     NOT NULL CHECK (length(title) <= 255),
  avatar         TEXT     NOT NULL CHECK (length(avatar) <= 1024),
  announcement   TEXT     NOT NULL CHECK (octet_length(announcement) <= 65535),
  owner          TEXT     NOT NULL CHECK (octet_length(owner) <= 64),
  join_policy    INTEGER  NOT NULL,
  mute_all       INTEGER  NOT NULL,
  history_open   INTEGER  NOT NULL,
  fanout         INTEGER  NOT NULL,
  members        INTEGER  NOT NULL,
  last_seq       INTEGER  NOT NULL,
  last_msg_no    INTEGER  NOT NULL,
  last_msg_seq   INTEGER  NOT NULL,
  last_at        INTEGER  NOT NULL,
  last_msg_at    INTEGER  NOT NULL,
  rejected_at    INTEGER  NOT NULL,
  created_at     INTEGER  NOT NULL,
  created_by     TEXT     NOT NULL CHECK (octet_length(created_by) <= 64),
  PRIMARY KEY (tenant, conversation)
) STRICT, WITHOUT ROWID;

-- Role 0 was a member once: the row keeps the guard (changed_seq) and the mute.
CREATE TABLE IF NOT EXISTS members (
  tenant         TEXT     NOT NULL CHECK (octet_length(tenant) <= 32),
  conversation   TEXT     NOT NULL CHECK (octet_length(conversation) <= 131),
  uid            TEXT     NOT NULL CHECK (octet_length(uid) <= 64),
  role           INTEGER  NOT NULL,
  joined_seq     INTEGER  NOT NULL,
  changed_seq    INTEGER  NOT NULL,
  read_seq       INTEGER  NOT NULL,
  read_msg_no    INTEGER  NOT NULL,
  delivered_seq  INTEGER  NOT NULL,
  muted_until    INTEGER  NOT NULL,
  joined_at      INTEGER  NOT NULL,
  invited_by     TEXT     NOT NULL CHECK (octet_length(invited_by) <= 64),
  PRIMARY KEY (tenant, conversation, uid)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS members_role ON members (tenant, conversation, role, uid);

-- msg_no counts the messages up to and including the entry; a change has that of the last message before it. The body of an
-- edit is in the message's row alone, so that a recall empties both.
CREATE TABLE IF NOT EXISTS entries (
  tenant         TEXT     NOT NULL CHECK (octet_length(tenant) <= 32),
  conversation   TEXT     NOT NULL CHECK (octet_length(conversation) <= 131),
  seq            INTEGER  NOT NULL,
  kind           INTEGER  NOT NULL,
  sender         TEXT     NOT NULL CHECK (octet_length(sender) <= 64),
  client_msg_id  TEXT     NOT NULL CHECK (octet_length(client_msg_id) <= 64),
  hash           BLOB     NOT NULL CHECK (octet_length(hash) = 32),
  msg_no         INTEGER  NOT NULL,
  changed_seq    INTEGER  NOT NULL,
  target_seq     INTEGER  NOT NULL,
  flags          INTEGER  NOT NULL,
  accepted_at    INTEGER  NOT NULL,
  body           BLOB     CHECK (octet_length(body) <= 65535),
  detail         BLOB     CHECK (octet_length(detail) <= 65535),
  address        TEXT     CHECK (octet_length(address) <= 64),
  PRIMARY KEY (tenant, conversation, seq)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS entries_client_msg_id ON entries (tenant, conversation, sender, client_msg_id);

-- First outcomes of what was rejected: a repeat is rejected too.
CREATE TABLE IF NOT EXISTS rejections (
  tenant         TEXT     NOT NULL CHECK (octet_length(tenant) <= 32),
  conversation   TEXT     NOT NULL CHECK (octet_length(conversation) <= 131),
  sender         TEXT     NOT NULL CHECK (octet_length(sender) <= 64),
  client_msg_id  TEXT     NOT NULL CHECK (octet_length(client_msg_id) <= 64),
  hash           BLOB     NOT NULL CHECK (octet_length(hash) = 32),
  code           TEXT     NOT NULL CHECK (octet_length(code) <= 64),
  reason         TEXT     NOT NULL CHECK (length(reason) <= 255),
  rejected_at    INTEGER  NOT NULL,
  PRIMARY KEY (tenant, conversation, sender, client_msg_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rejections_age ON rejections (tenant, rejected_at);

-- A row for each mentioned uid; the empty uid is everybody.
CREATE TABLE IF NOT EXISTS mentions (
  tenant         TEXT     NOT NULL CHECK (octet_length(tenant) <= 32),
  conversation   TEXT     NOT NULL CHECK (octet_length(conversation) <= 131),
  uid            TEXT     NOT NULL CHECK (octet_length(uid) <= 64),
  seq            INTEGER  NOT NULL,
  PRIMARY KEY (tenant, conversation, uid, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS mentions_seq ON mentions (tenant, conversation, seq);

CREATE TABLE IF NOT EXISTS reactions (
  tenant         TEXT     NOT NULL CHECK (octet_length(tenant) <= 32),
  conversation   TEXT     NOT NULL CHECK (octet_length(conversation) <= 131),
  seq            INTEGER  NOT NULL,
  reaction       TEXT     NOT NULL CHECK (octet_length(reaction) <= 64),
  uid            TEXT     NOT NULL CHECK (octet_length(uid) <= 64),
  changed_seq    INTEGER  NOT NULL,
  PRIMARY KEY (tenant, conversation, seq, reaction, uid)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS pins (
  tenant         TEXT     NOT NULL CHECK (octet_length(tenant) <= 32),
  conversation   TEXT     NOT NULL CHECK (octet_length(conversation) <= 131),
  seq            INTEGER  NOT NULL,
  changed_seq    INTEGER  NOT NULL,
  pinned_by      TEXT     NOT NULL CHECK (octet_length(pinned_by) <= 64),
  pinned_at      INTEGER  NOT NULL,
  PRIMARY KEY (tenant, conversation, seq)
) STRICT, WITHOUT ROWID;

-- What a message said before the change of changed_seq; for the audit alone, for as long as the operator keeps it.
CREATE TABLE IF NOT EXISTS audit (
  tenant         TEXT     NOT NULL CHECK (octet_length(tenant) <= 32),
  conversation   TEXT     NOT NULL CHECK (octet_length(conversation) <= 131),
  seq            INTEGER  NOT NULL,
  changed_seq    INTEGER  NOT NULL,
  kind           INTEGER  NOT NULL,
  changed_by     TEXT     NOT NULL CHECK (octet_length(changed_by) <= 64),
  changed_at     INTEGER  NOT NULL,
  body           BLOB     CHECK (octet_length(body) <= 65535),
  detail         BLOB     CHECK (octet_length(detail) <= 65535),
  PRIMARY KEY (tenant, conversation, seq, changed_seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS audit_age ON audit (tenant, changed_at);

-- Divided by uid.

-- Members a second time, so that a person's list asks one shard. changed_seq guards it against older news.
CREATE TABLE IF NOT EXISTS user_conversations (
  tenant         TEXT     NOT NULL CHECK (octet_length(tenant) <= 32),
  uid            TEXT     NOT NULL CHECK (octet_length(uid) <= 64),
  conversation   TEXT     NOT NULL CHECK (octet_length(conversation) <= 131),
  role           INTEGER  NOT NULL,
  joined_seq     INTEGER  NOT NULL,
  changed_seq    INTEGER  NOT NULL,
  PRIMARY KEY (tenant, uid, conversation)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS user_numbers (
  tenant         TEXT     NOT NULL CHECK (octet_length(tenant) <= 32),
  uid            TEXT     NOT NULL CHECK (octet_length(uid) <= 64),
  last_number    INTEGER  NOT NULL,
  PRIMARY KEY (tenant, uid)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS user_changes (
  tenant         TEXT     NOT NULL CHECK (octet_length(tenant) <= 32),
  uid            TEXT     NOT NULL CHECK (octet_length(uid) <= 64),
  kind           TEXT     NOT NULL CHECK (octet_length(kind) <= 32),
  object         TEXT     NOT NULL CHECK (octet_length(object) <= 160),
  number         INTEGER  NOT NULL,
  guard          INTEGER  NOT NULL,
  changed_at     INTEGER  NOT NULL,
  value          BLOB     CHECK (octet_length(value) <= 65535),
  PRIMARY KEY (tenant, uid, kind, object)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS user_changes_number ON user_changes (tenant, uid, number);

CREATE TABLE IF NOT EXISTS users (
  tenant         TEXT     NOT NULL CHECK (octet_length(tenant) <= 32),
  uid            TEXT     NOT NULL CHECK (octet_length(uid) <= 64),
  name           TEXT     NOT NULL CHECK (length(name) <= 255),
  name_folded    TEXT     NOT NULL CHECK (octet_length(name_folded) <= 512),
  avatar         TEXT     NOT NULL CHECK (length(avatar) <= 1024),
  profile        BLOB     CHECK (octet_length(profile) <= 65535),
  visibility     INTEGER  NOT NULL,
  disabled       INTEGER  NOT NULL,
  created_at     INTEGER  NOT NULL,
  updated_at     INTEGER  NOT NULL,
  PRIMARY KEY (tenant, uid)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS users_name ON users (tenant, name_folded, uid);

CREATE TABLE IF NOT EXISTS contacts (
  tenant         TEXT     NOT NULL CHECK (octet_length(tenant) <= 32),
  uid            TEXT     NOT NULL CHECK (octet_length(uid) <= 64),
  peer           TEXT     NOT NULL CHECK (octet_length(peer) <= 64),
  state          INTEGER  NOT NULL,
  remark         TEXT     NOT NULL CHECK (length(remark) <= 255),
  note           TEXT     NOT NULL CHECK (length(note) <= 1024),
  changed_at     INTEGER  NOT NULL,
  PRIMARY KEY (tenant, uid, peer)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS blocks (
  tenant         TEXT     NOT NULL CHECK (octet_length(tenant) <= 32),
  uid            TEXT     NOT NULL CHECK (octet_length(uid) <= 64),
  peer           TEXT     NOT NULL CHECK (octet_length(peer) <= 64),
  blocked_at     INTEGER  NOT NULL,
  PRIMARY KEY (tenant, uid, peer)
) STRICT, WITHOUT ROWID;

-- Divided by endpoint.

CREATE TABLE IF NOT EXISTS hook_keys (
  tenant         TEXT     NOT NULL CHECK (octet_length(tenant) <= 32),
  endpoint       TEXT     NOT NULL CHECK (octet_length(endpoint) <= 64),
  hook_key       TEXT     NOT NULL CHECK (octet_length(hook_key) <= 160),
  due            INTEGER  NOT NULL,
  since          INTEGER  NOT NULL,
  attempts       INTEGER  NOT NULL,
  claim          INTEGER  NOT NULL,
  PRIMARY KEY (tenant, endpoint, hook_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS hook_keys_due ON hook_keys (tenant, endpoint, due, since);

CREATE TABLE IF NOT EXISTS hook_queue (
  tenant         TEXT     NOT NULL CHECK (octet_length(tenant) <= 32),
  endpoint       TEXT     NOT NULL CHECK (octet_length(endpoint) <= 64),
  hook_key       TEXT     NOT NULL CHECK (octet_length(hook_key) <= 160),
  number         INTEGER  NOT NULL,
  id             TEXT     NOT NULL CHECK (octet_length(id) <= 64),
  created_at     INTEGER  NOT NULL,
  body           BLOB     NOT NULL CHECK (octet_length(body) <= 16777215),
  PRIMARY KEY (tenant, endpoint, hook_key, number)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE hook_keys;
DROP TABLE hook_queue;
DROP TABLE blocks;
DROP TABLE contacts;
DROP TABLE users;
DROP TABLE user_changes;
DROP TABLE user_numbers;
DROP TABLE user_conversations;
DROP TABLE audit;
DROP TABLE pins;
DROP TABLE reactions;
DROP TABLE mentions;
DROP TABLE rejections;
DROP TABLE entries;
DROP TABLE members;
DROP TABLE conversations;
