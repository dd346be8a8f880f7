"""Operations on backup schedules."""

from api.control.schedules import CreateSchedule, UpdateSchedule
from api.openapi.answers.backups import BackupPage, SchedulePage, ScheduleShown
from api.openapi.operation import Access, Answer, Operation
from api.openapi.tables.backups import PAGE

TAG = "Backup schedules"

OPERATIONS = (
    Operation(
        "POST",
        "/indexes/{name}/backup-schedules",
        "createBackupSchedule",
        "Back up an index every day, week or month",
        TAG,
        Access.ADMIN,
        {201: Answer("It is enabled, its first run planned", ScheduleShown)},
        request=CreateSchedule,
        errors=(409, 412),
        description="An index has one enabled schedule at most.",
    ),
    Operation(
        "GET",
        "/indexes/{name}/backup-schedules",
        "listBackupSchedules",
        "List an index's schedules, the newest first",
        TAG,
        Access.READ,
        {200: Answer("A page", SchedulePage)},
        parameters=PAGE,
    ),
    Operation(
        "GET",
        "/backup-schedules/{schedule_id}",
        "describeBackupSchedule",
        "Describe a schedule",
        TAG,
        Access.READ,
        {200: Answer("The schedule", ScheduleShown)},
    ),
    Operation(
        "PATCH",
        "/backup-schedules/{schedule_id}",
        "updateBackupSchedule",
        "Change, disable or enable a schedule",
        TAG,
        Access.ADMIN,
        {200: Answer("The schedule as it is now", ScheduleShown)},
        request=UpdateSchedule,
        errors=(409,),
        description="Another retention holds for the backups that it has made as well.",
    ),
    Operation(
        "DELETE",
        "/backup-schedules/{schedule_id}",
        "deleteBackupSchedule",
        "Delete a schedule",
        TAG,
        Access.ADMIN,
        {202: Answer("It is gone")},
        description="The backups that it has made stay, and do not expire any more.",
    ),
    Operation(
        "GET",
        "/backup-schedules/{schedule_id}/history",
        "listBackupScheduleHistory",
        "List the backups that a schedule has made, the newest first",
        TAG,
        Access.READ,
        {200: Answer("A page", BackupPage)},
        parameters=PAGE,
    ),
)
