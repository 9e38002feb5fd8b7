# SPDX-License-Identifier: MIT
"""compat_calls: how many arguments calls take."""
from __future__ import annotations

import re

_NAMES = {
    0: """
        fork getegid geteuid getgid getpgrp getpid getppid gettid getuid inotify_init
        munlockall pause restart_syscall rt_sigreturn sched_yield setsid sgetmask sigreturn
        sync vfork vhangup
    """,
    1: """
        acct adjtimex alarm brk chdir chroot close dup epoll_create epoll_create1 eventfd exit
        exit_group fchdir fdatasync fsync getpgid getsid inotify_init1 io_destroy iopl
        memfd_secret mlockall mq_unlink newuname nice old_mmap old_select oldumount olduname
        personality pipe pkey_free rmdir sched_get_priority_max sched_get_priority_min
        sched_getscheduler set_thread_area set_tid_address setfsgid setfsuid setgid setuid
        shmdt sigpending ssetmask stime stime32 swapoff syncfs sysinfo time time32 timer_delete
        timer_getoverrun times umask uname unlink unshare uselib userfaultfd
    """,
    2: """
        access arch_prctl capget capset chmod clock_adjtime clock_adjtime32 clock_getres
        clock_gettime clock_gettime32 clock_settime clock_settime32 clone3 creat delete_module
        dup2 eventfd2 fanotify_init fchmod flock fremovexattr fsopen fstat fstat64 fstatfs
        ftruncate ftruncate64 getcwd getgroups gethostname getitimer getpriority getrlimit
        getrusage gettimeofday inotify_rm_watch io_setup io_uring_setup ioprio_get kill
        landlock_restrict_self link listen lremovexattr lstat lstat64 memfd_create mkdir mlock
        mq_notify msgget munlock munmap nanosleep newfstat newlstat newstat old_getrlimit
        pidfd_open pipe2 pivot_root pkey_alloc process_mrelease removexattr rename
        rt_sigpending rt_sigsuspend sched_getparam sched_rr_get_interval sched_setparam
        set_robust_list setdomainname setgroups sethostname setns setpgid setregid setreuid
        setrlimit settimeofday shutdown sigaltstack signal socketcall stat stat64 statfs swapon
        symlink timer_gettime timer_gettime32 timerfd_create timerfd_gettime timerfd_gettime32
        tkill truncate truncate64 umount umount2 ustat utime utime32 utimes
    """,
    3: """
        accept bind bpf cacheflush chown close_range connect dup3 execve faccessat fchmodat
        fchown fcntl fcntl64 finit_module flistxattr fsmount fspick fstatfs64 futimesat
        get_robust_list getcpu getdents getdents64 getpeername getrandom getresgid getresuid
        getsockname init_module inotify_add_watch io_cancel io_submit ioctl ioperm ioprio_set
        landlock_create_ruleset lchown listxattr llistxattr lookup_dcookie lseek madvise
        map_shadow_stack membarrier mincore mkdirat mknod mlock2 modify_ldt mprotect
        mq_getsetattr mseal msgctl msync old_msgctl old_readdir old_shmctl open
        open_by_handle_at open_tree pciconfig_iobase pidfd_getfd poll read readahead readlink
        readv recvmsg rt_sigqueueinfo sched_getaffinity sched_setaffinity sched_setattr
        sched_setscheduler seccomp semget semop sendmsg set_mempolicy setitimer setpriority
        setresgid setresuid shmat shmctl shmget sigaction signalfd sigprocmask socket spu_run
        statfs64 symlinkat sysfs syslog tgkill timer_create unlinkat waitpid write writev
    """,
    4: """
        accept4 cachestat clock_nanosleep epoll_ctl epoll_wait faccessat2 fadvise64 fallocate
        fchmodat2 fgetxattr fstatat64 futex_requeue futex_wake getxattr io_uring_register
        kexec_load landlock_add_rule lgetxattr listmount migrate_pages mknodat mq_open msgsnd
        newfstatat old_semctl openat openat2 pidfd_send_signal pkey_mprotect pread64 prlimit64
        ptrace pwrite64 quotactl quotactl_fd readlinkat reboot recv renameat request_key rseq
        rt_sigaction rt_sigprocmask rt_sigtimedwait rt_tgsigqueueinfo sched_getattr semctl
        semtimedop send sendfile sendfile64 sendmmsg set_mempolicy_home_node signalfd4
        socketpair spu_create statmount sync_file_range sync_file_range2 tee timer_settime
        timer_settime32 timerfd_settime timerfd_settime32 utimensat vmsplice wait4
    """,
    5: """
        _llseek _newselect add_key clone execveat fanotify_mark fchownat fsconfig fsetxattr
        futex_waitv get_mempolicy getsockopt io_getevents kcmp kexec_file_load keyctl linkat
        llseek lsetxattr mount mount_setattr move_mount mq_timedreceive mq_timedsend mremap
        msgrcv name_to_handle_at pciconfig_read pciconfig_write perf_event_open ppoll prctl
        preadv process_madvise pwritev recvmmsg remap_file_pages renameat2 select setsockopt
        setxattr statx waitid
    """,
    6: """
        copy_file_range epoll_pwait epoll_pwait2 futex futex_wait io_pgetevents io_uring_enter
        ipc mbind mmap mmap2 mmap_pgoff move_pages preadv2 process_vm_readv process_vm_writev
        pselect6 pwritev2 recvfrom sendto splice
    """,
}
_COUNTS = {name: count for count, names in _NAMES.items() for name in names.split()}


def count_args(call: str) -> int:
    """Of a call that is not known, six: as many as there can be."""
    return _COUNTS.get(re.sub(r"_time32$|(?<!\d)16$", "", call), 6)
