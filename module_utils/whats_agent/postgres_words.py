# SPDX-License-Identifier: GPL-3.0-or-later
"""The closed list of what can be wrong with the database: each cause's name, its words, and who mends it."""

from __future__ import annotations

HEALTHY = "healthy"
# Causes whose last rung is a restore: for these the repository is looked at before anything is planned.
RESTORED = frozenset(
    [
        "restore_unfinished",
        "volume_lost",
        "volume_empty",
        "control_file_lost",
        "page_corrupt",
        "catalog_corrupt",
        "startup_damaged",
        "wrong_data",
        "undo_wanted",
    ]
)

SUMMARIES: dict[str, tuple[str, str]] = {
    "healthy": ("PostgreSQL answers, and the pages read are sound", "O PostgreSQL responde, e as páginas lidas estão íntegras"),
    "engine_down": ("the Docker engine does not answer", "o Docker não responde"),
    "config_invalid": ("the stack's .env cannot be used", "o .env da stack não pode ser usado"),
    "restore_unfinished": ("a restore was begun and not finished", "uma restauração foi iniciada e não terminou"),
    "restore_abandoned": (
        "a restore was begun, and its database is back by other means",
        "uma restauração foi iniciada, e o banco voltou por outro meio",
    ),
    "restored_unsound": (
        "the restored database serves and is not sound",
        "o banco restaurado atende, mas não está íntegro",
    ),
    "volume_lost": ("the data volume does not exist", "o volume de dados não existe"),
    "volume_empty": ("the data volume is empty", "o volume de dados está vazio"),
    "wrong_major": ("the data belongs to another PostgreSQL version", "os dados são de outra versão do PostgreSQL"),
    "control_file_lost": ("the data has lost global/pg_control", "os dados perderam global/pg_control"),
    "volume_misnamed": (
        ".env names a data volume that does not exist, and the container uses another",
        "o .env indica um volume de dados que não existe, e o contêiner usa outro",
    ),
    "container_missing": ("there is no postgres container", "não há contêiner postgres"),
    "container_outdated": (
        "the postgres container runs on another volume than .env names",
        "o contêiner postgres usa outro volume que não o do .env",
    ),
    "container_paused": ("the postgres container is paused", "o contêiner postgres está pausado"),
    "container_stopped": ("the postgres container is stopped", "o contêiner postgres está parado"),
    "container_exited": ("the postgres container ended by itself", "o contêiner postgres terminou sozinho"),
    "crash_loop": ("the postgres container starts and dies again", "o contêiner postgres reinicia sem parar"),
    "startup_damaged": ("PostgreSQL cannot start on damaged data", "o PostgreSQL não inicia: dados danificados"),
    "config_refused": ("PostgreSQL refuses its configuration", "o PostgreSQL recusa sua configuração"),
    "disk_full": ("the disk under the database is full", "o disco do banco de dados está cheio"),
    "starting": ("PostgreSQL is starting or replaying after a crash", "o PostgreSQL está iniciando ou se recuperando"),
    "process_stopped": (
        "a signal has stopped processes of PostgreSQL",
        "um sinal parou processos do PostgreSQL",
    ),
    "unresponsive": ("PostgreSQL runs and does not answer", "o PostgreSQL está no ar e não responde"),
    "connections_exhausted": ("all connections are taken", "todas as conexões estão ocupadas"),
    "catalog_corrupt": ("the system catalog is damaged", "o catálogo do sistema está corrompido"),
    "page_corrupt": ("data pages are damaged", "páginas de dados estão corrompidas"),
    "index_corrupt": ("an index is damaged", "um índice está corrompido"),
    "database_missing": ("the agent's database does not exist", "o banco de dados do agente não existe"),
    "credentials_wrong": ("the credentials of .env do not fit the database", "as credenciais do .env não servem"),
    "url_wrong": (".env does not lead to the stack's database", "o .env não leva ao banco da stack"),
    "read_only_standby": ("PostgreSQL is a standby, without writes", "o PostgreSQL é um standby: não aceita escritas"),
    "blocked": ("a forgotten transaction blocks the others", "uma transação esquecida bloqueia as outras"),
    "archive_failing": ("WAL does not reach the backup repository", "o WAL não chega ao repositório de backup"),
    "slot_holding_wal": ("a replication slot holds back WAL", "um slot de replicação retém WAL"),
    "wrong_data": ("the operator asks for the data of an earlier time", "o operador pede os dados de um momento anterior"),
    "undo_wanted": ("the operator asks to go back behind a restore", "o operador pede para desfazer uma restauração"),
    "removal_wanted": ("the operator asks to remove an old volume", "o operador pede para remover um volume antigo"),
    "commits_waiting": ("commits wait for the WAL receiver", "commits esperam pelo receptor de WAL"),
    "receiver_stopped": ("the WAL receiver does not follow the database", "o receptor de WAL não acompanha o banco"),
    "receiver_bypassed": ("commits go on without the WAL receiver", "commits seguem sem o receptor de WAL"),
    "collation_changed": ("the collation version has changed", "a versão da collation mudou"),
}  # fmt: skip

BELONGS_TO = {
    "engine_down": "recover_system.yml",
    "config_invalid": "recover_config.yml",
    "config_refused": "recover_config.yml",
}
# Causes that only a person can decide about, and what is to be decided.
FOR_PEOPLE: dict[str, tuple[str, str]] = {
    "wrong_major": (
        "put back the release whose image has that version, or upgrade the data with pg_upgrade into a volume of its own",
        "volte à release cuja imagem tem essa versão, ou atualize os dados com pg_upgrade para um volume próprio",
    ),
    "database_missing": (
        "somebody dropped it, and a restore up to now would drop it again: name a time before that, -e target_time=TIME",
        "alguém o removeu, e restaurar até agora o removeria de novo: informe um momento anterior, -e target_time=MOMENTO",
    ),
    "restored_unsound": (
        (
            "go back to an earlier time (-e target_time=TIME) or, where the volume of before is still there, behind that restore "
            "(-e undo=last); or mend the tables and have that proven: playbooks/backup.yml -e type=full -e prove=true"
        ),
        (
            "volte a um momento anterior (-e target_time=MOMENTO) ou, se o volume de antes ainda existir, antes dessa restauração "
            "(-e undo=last); ou corrija as tabelas e comprove isso: playbooks/backup.yml -e type=full -e prove=true"
        ),
    ),
}
