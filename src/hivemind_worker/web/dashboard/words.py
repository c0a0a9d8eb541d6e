"""What the window says, in the platform's two languages, and which of them a browser wants. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ENGLISH: Final = "en"
CHINESE: Final = "zh-Hant"

TEXTS: Final[Mapping[str, Mapping[str, str]]] = {
    ENGLISH: {
        "title": "HiveMind Worker", "skip": "Skip to the content", "language": "Language", "node": "Node",
        "no_script": "Without scripts this page does not refresh itself: load it again.",
        "lost": "The worker does not answer; this is how it was. Trying again …",
        "foot": "This page shows and changes nothing. The same in a terminal: ",
        "still": "its loops stand still",
        "good": "All is well: it is ready for tasks", "working": "All is well. Tasks here: {count}",
        "held": "It takes no tasks now: {why}", "bad": "Something is wrong: {what}",
        "health": "Is this machine fine?", "ok": "fine", "not_ok": "wrong",
        "node_pool": "Node Pool", "docker": "Isolation", "resources": "CPU and memory", "disk_space": "Disk",
        "machine": "The last ten minutes", "cpu": "CPU", "memory": "Memory", "disk": "Disk",
        "cores": "of {count} cores", "of_bytes": "of {total}", "range": "{low}–{high} in {minutes} min",
        "unknown": "not measured", "gpus": "GPUs",
        "running": "Tasks that are here", "none_running": "None at the moment.",
        "ended": "Ended last", "none_ended": "None since this worker started.",
        "task": "Task", "attempt": "Attempt", "phase": "Phase", "time": "Time", "processes": "Processes",
        "when": "When", "status": "Status", "reason": "Reason", "error": "What was said",
        "ago": "{span} ago", "seconds": "{count} s", "minutes": "{count} min", "hours": "{count} h",
        "fences": "What fences tasks here",
        "fence_docker": "Containers of a Docker engine", "fence_sandbox": "bubblewrap sandbox",
        "in_force": "in force", "not_in_force": "not in force",
        "about": "This worker", "pool": "Pool", "not_connected": "not connected", "isolation": "Isolation",
        "at_once": "Tasks at once", "no_limit": "as many as fit", "given": "Given to tasks", "of": "{part} of {whole}",
        "count": "Ended so far", "troubles": "Last troubles", "no_troubles": "None.",
        "accepted": "waiting", "preparing": "preparing", "starting": "starting", "phase_running": "running",
        "collecting": "collecting results", "reporting": "reporting", "phase_ended": "ended",
        "completed": "completed", "failed": "failed", "cancelled": "cancelled",
    },
    CHINESE: {
        "title": "HiveMind 工作節點", "skip": "跳至內容", "language": "語言", "node": "節點",
        "no_script": "未啟用指令碼時此頁不會自動更新，請重新載入。",
        "lost": "工作節點沒有回應；以下是最後的狀態。正在重試……",
        "foot": "此頁僅供檢視，不會變更任何設定。在終端機查看：",
        "still": "內部迴圈停滯", "good": "一切正常：可以接受任務", "working": "一切正常。目前有 {count} 個任務",
        "held": "目前不接受任務：{why}", "bad": "發現問題：{what}",
        "health": "這台機器正常嗎？", "ok": "正常", "not_ok": "異常",
        "node_pool": "節點池", "docker": "隔離", "resources": "CPU 與記憶體", "disk_space": "磁碟",
        "machine": "最近十分鐘", "cpu": "CPU", "memory": "記憶體", "disk": "磁碟",
        "cores": "共 {count} 核心", "of_bytes": "共 {total}", "range": "{minutes} 分鐘內 {low}–{high}",
        "unknown": "未測量", "gpus": "GPU",
        "running": "目前的任務", "none_running": "目前沒有任務。",
        "ended": "最近結束的任務", "none_ended": "自此工作節點啟動以來尚無。",
        "task": "任務", "attempt": "嘗試", "phase": "階段", "time": "時間", "processes": "行程數",
        "when": "結束時間", "status": "狀態", "reason": "原因", "error": "訊息",
        "ago": "{span}前", "seconds": "{count} 秒", "minutes": "{count} 分鐘", "hours": "{count} 小時",
        "fences": "任務的隔離措施",
        "fence_docker": "Docker 引擎的容器", "fence_sandbox": "bubblewrap 沙箱",
        "in_force": "生效", "not_in_force": "未生效",
        "about": "關於此工作節點", "pool": "節點池", "not_connected": "未連線", "isolation": "隔離",
        "at_once": "同時任務數", "no_limit": "依資源而定", "given": "已分配給任務", "of": "{part}／{whole}",
        "count": "已結束", "troubles": "最近的問題", "no_troubles": "沒有。",
        "accepted": "等待中", "preparing": "準備中", "starting": "啟動中", "phase_running": "執行中",
        "collecting": "收集結果", "reporting": "回報中", "phase_ended": "已結束",
        "completed": "完成", "failed": "失敗", "cancelled": "已取消",
    },
}  # fmt: skip
"""Language → key → text, the same keys in both."""


def language(asked: str, accepted: str) -> str:
    """Return which language to speak: the one ``asked`` for in the address, else what an Accept-Language likes best."""
    for wanted in (asked, *_by_liking(accepted)):
        first = wanted.lower().partition("-")[0]
        if first in {"en", "*"}:
            return ENGLISH
        if first == "zh":
            return CHINESE
    return ENGLISH


def _by_liking(accepted: str) -> list[str]:
    liked = []
    for part in accepted[:1000].split(","):
        name, _, rest = part.strip().partition(";")
        said = rest.strip().removeprefix("q=")
        try:
            liking = float(said) if rest else 1.0
        except ValueError:
            liking = 0.0
        if name and liking > 0:
            liked.append((liking, name.strip()))
    return [name for _, name in sorted(liked, key=lambda each: -each[0])]
