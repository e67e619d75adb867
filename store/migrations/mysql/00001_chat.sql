-- Everything that chat keeps. Names that users or backends choose are bytes (VARBINARY): compared as they are, no collation,
-- no padding. Every key begins with the tenant; the second part is what a sharded database divides by: the conversation,
-- or the uid (docs/scale.md). Times are milliseconds since 1970.
--
-- +goose Up

-- Divided by conversation.

CREATE TABLE IF NOT EXISTS conversations (
  tenant         VARBINARY(32)   NOT NULL,
  conversation   VARBINARY(131)  NOT NULL,
  type           TINYINT         NOT NULL,
  dissolved      TINYINT         NOT NULL,
  title          VARCHAR(255)    NOT NULL,
  avatar         VARCHAR(1024)   NOT NULL,
  announcement   TEXT            NOT NULL,
  owner          VARBINARY(64)   NOT NULL,
  join_policy    TINYINT         NOT NULL,
  mute_all       TINYINT         NOT NULL,
  history_open   TINYINT         NOT NULL,
  fanout         TINYINT         NOT NULL,
  members        BIGINT          NOT NULL,
  last_seq       BIGINT          NOT NULL,
  last_msg_no    BIGINT          NOT NULL,
  last_msg_seq   BIGINT          NOT NULL,
  last_at        BIGINT          NOT NULL,
  last_msg_at    BIGINT          NOT NULL,
  rejected_at    BIGINT          NOT NULL,
  created_at     BIGINT          NOT NULL,
  created_by     VARBINARY(64)   NOT NULL,
  PRIMARY KEY (tenant, conversation)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Role 0 was a member once: the row keeps the guard (changed_seq) and the mute.
CREATE TABLE IF NOT EXISTS members (
  tenant         VARBINARY(32)   NOT NULL,
  conversation   VARBINARY(131)  NOT NULL,
  uid            VARBINARY(64)   NOT NULL,
  role           TINYINT         NOT NULL,
  joined_seq     BIGINT          NOT NULL,
  changed_seq    BIGINT          NOT NULL,
  read_seq       BIGINT          NOT NULL,
  read_msg_no    BIGINT          NOT NULL,
  delivered_seq  BIGINT          NOT NULL,
  muted_until    BIGINT          NOT NULL,
  joined_at      BIGINT          NOT NULL,
  invited_by     VARBINARY(64)   NOT NULL,
  PRIMARY KEY (tenant, conversation, uid),
  KEY members_role (tenant, conversation, role, uid)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- msg_no counts the messages up to and including the entry; a change has that of the last message before it. The body of an
-- edit is in the message's row alone, so that a recall empties both.
CREATE TABLE IF NOT EXISTS entries (
  tenant         VARBINARY(32)   NOT NULL,
  conversation   VARBINARY(131)  NOT NULL,
  seq            BIGINT          NOT NULL,
  kind           TINYINT         NOT NULL,
  sender         VARBINARY(64)   NOT NULL,
  client_msg_id  VARBINARY(64)   NOT NULL,
  hash           BINARY(32)      NOT NULL,
  msg_no         BIGINT          NOT NULL,
  changed_seq    BIGINT          NOT NULL,
  target_seq     BIGINT          NOT NULL,
  flags          TINYINT         NOT NULL,
  accepted_at    BIGINT          NOT NULL,
  body           BLOB            NULL,
  detail         BLOB            NULL,
  address        VARBINARY(64)   NULL,
  PRIMARY KEY (tenant, conversation, seq),
  UNIQUE KEY entries_client_msg_id (tenant, conversation, sender, client_msg_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- First outcomes of what was rejected: a repeat is rejected too.
CREATE TABLE IF NOT EXISTS rejections (
  tenant         VARBINARY(32)   NOT NULL,
  conversation   VARBINARY(131)  NOT NULL,
  sender         VARBINARY(64)   NOT NULL,
  client_msg_id  VARBINARY(64)   NOT NULL,
  hash           BINARY(32)      NOT NULL,
  code           VARBINARY(64)   NOT NULL,
  reason         VARCHAR(255)    NOT NULL,
  rejected_at    BIGINT          NOT NULL,
  PRIMARY KEY (tenant, conversation, sender, client_msg_id),
  KEY rejections_age (tenant, rejected_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- A row for each mentioned uid; the empty uid is everybody.
CREATE TABLE IF NOT EXISTS mentions (
  tenant         VARBINARY(32)   NOT NULL,
  conversation   VARBINARY(131)  NOT NULL,
  uid            VARBINARY(64)   NOT NULL,
  seq            BIGINT          NOT NULL,
  PRIMARY KEY (tenant, conversation, uid, seq),
  KEY mentions_seq (tenant, conversation, seq)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS reactions (
  tenant         VARBINARY(32)   NOT NULL,
  conversation   VARBINARY(131)  NOT NULL,
  seq            BIGINT          NOT NULL,
  reaction       VARBINARY(64)   NOT NULL,
  uid            VARBINARY(64)   NOT NULL,
  changed_seq    BIGINT          NOT NULL,
  PRIMARY KEY (tenant, conversation, seq, reaction, uid)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS pins (
  tenant         VARBINARY(32)   NOT NULL,
  conversation   VARBINARY(131)  NOT NULL,
  seq            BIGINT          NOT NULL,
  changed_seq    BIGINT          NOT NULL,
  pinned_by      VARBINARY(64)   NOT NULL,
  pinned_at      BIGINT          NOT NULL,
  PRIMARY KEY (tenant, conversation, seq)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- What a message said before the change of changed_seq; for the audit alone, for as long as the operator keeps it.
CREATE TABLE IF NOT EXISTS audit (
  tenant         VARBINARY(32)   NOT NULL,
  conversation   VARBINARY(131)  NOT NULL,
  seq            BIGINT          NOT NULL,
  changed_seq    BIGINT          NOT NULL,
  kind           TINYINT         NOT NULL,
  changed_by     VARBINARY(64)   NOT NULL,
  changed_at     BIGINT          NOT NULL,
  body           BLOB            NULL,
  detail         BLOB            NULL,
  PRIMARY KEY (tenant, conversation, seq, changed_seq),
  KEY audit_age (tenant, changed_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Divided by uid.

-- Members a second time, so that a person's list asks one shard. changed_seq guards it against older news.
CREATE TABLE IF NOT EXISTS user_conversations (
  tenant         VARBINARY(32)   NOT NULL,
  uid            VARBINARY(64)   NOT NULL,
  conversation   VARBINARY(131)  NOT NULL,
  role           TINYINT         NOT NULL,
  joined_seq     BIGINT          NOT NULL,
  changed_seq    BIGINT          NOT NULL,
  PRIMARY KEY (tenant, uid, conversation)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS user_numbers (
  tenant         VARBINARY(32)   NOT NULL,
  uid            VARBINARY(64)   NOT NULL,
  last_number    BIGINT          NOT NULL,
  PRIMARY KEY (tenant, uid)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS user_changes (
  tenant         VARBINARY(32)   NOT NULL,
  uid            VARBINARY(64)   NOT NULL,
  kind           VARBINARY(32)   NOT NULL,
  object         VARBINARY(160)  NOT NULL,
  number         BIGINT          NOT NULL,
  guard          BIGINT          NOT NULL,
  changed_at     BIGINT          NOT NULL,
  value          BLOB            NULL,
  PRIMARY KEY (tenant, uid, kind, object),
  UNIQUE KEY user_changes_number (tenant, uid, number)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS users (
  tenant         VARBINARY(32)   NOT NULL,
  uid            VARBINARY(64)   NOT NULL,
  name           VARCHAR(255)    NOT NULL,
  name_folded    VARBINARY(512)  NOT NULL,
  avatar         VARCHAR(1024)   NOT NULL,
  profile        BLOB            NULL,
  visibility     TINYINT         NOT NULL,
  disabled       TINYINT         NOT NULL,
  created_at     BIGINT          NOT NULL,
  updated_at     BIGINT          NOT NULL,
  PRIMARY KEY (tenant, uid),
  KEY users_name (tenant, name_folded, uid)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS contacts (
  tenant         VARBINARY(32)   NOT NULL,
  uid            VARBINARY(64)   NOT NULL,
  peer           VARBINARY(64)   NOT NULL,
  state          TINYINT         NOT NULL,
  remark         VARCHAR(255)    NOT NULL,
  note           VARCHAR(1024)   NOT NULL,
  changed_at     BIGINT          NOT NULL,
  PRIMARY KEY (tenant, uid, peer)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS blocks (
  tenant         VARBINARY(32)   NOT NULL,
  uid            VARBINARY(64)   NOT NULL,
  peer           VARBINARY(64)   NOT NULL,
  blocked_at     BIGINT          NOT NULL,
  PRIMARY KEY (tenant, uid, peer)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Divided by endpoint.

-- A row for each key of which something waits: when the first of it is due, or until when somebody has it (claim), how often the
-- first was tried and when it was put in. Every change of a key's hooks locks this row before it touches hook_queue.
CREATE TABLE IF NOT EXISTS hook_keys (
  tenant         VARBINARY(32)   NOT NULL,
  endpoint       VARBINARY(64)   NOT NULL,
  hook_key       VARBINARY(160)  NOT NULL,
  due            BIGINT          NOT NULL,
  since          BIGINT          NOT NULL,
  attempts       INT             NOT NULL,
  claim          BIGINT          NOT NULL,
  PRIMARY KEY (tenant, endpoint, hook_key),
  KEY hook_keys_due (tenant, endpoint, due, since)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS hook_queue (
  tenant         VARBINARY(32)   NOT NULL,
  endpoint       VARBINARY(64)   NOT NULL,
  hook_key       VARBINARY(160)  NOT NULL,
  number         BIGINT          NOT NULL,
  id             VARBINARY(64)   NOT NULL,
  created_at     BIGINT          NOT NULL,
  body           MEDIUMBLOB      NOT NULL,
  PRIMARY KEY (tenant, endpoint, hook_key, number)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- +goose Down
DROP TABLE hook_keys, hook_queue, blocks, contacts, users, user_changes, user_numbers, user_conversations, audit, pins, reactions, mentions,
  rejections, entries, members, conversations;
