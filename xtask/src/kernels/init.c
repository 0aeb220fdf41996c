// The only program of a machine that shows whether the profiler works on its kernel. See ../kernels.rs.

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FRAME __attribute__((noipa))

FRAME static uint64_t inner(uint64_t x) {
  for (int i = 0; i < 100000; i++) x = x * 6364136223846793005u + 1442695040888963407u;
  return x;
}

FRAME static uint64_t outer(uint64_t x) { return inner(x) + 1; }

/* Works for so many seconds. */
static int work(int seconds) {
  time_t end = time(NULL) + seconds;
  uint64_t x = 1;
  while (time(NULL) < end) x = outer(x);
  return x == 0;
}

/* Runs a program to its end; its exit code, or 255. */
static int run(char **argv) {
  pid_t child = fork();
  if (child == 0) {
    execv(argv[0], argv);
    perror(argv[0]);
    _exit(255);
  }
  int status;
  if (child < 0 || waitpid(child, &status, 0) != child) return 255;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static void print_file(const char *path) {
  char buffer[4096];
  int file = open(path, O_RDONLY);
  for (ssize_t n; file >= 0 && (n = read(file, buffer, sizeof buffer)) > 0;)
    if (write(STDOUT_FILENO, buffer, (size_t)n) != n) break;
  if (file >= 0) close(file);
}

static void begin(const char *part) {
  printf("\n== %s ==\n", part);
  fflush(stdout);
}

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "work") == 0) return work(3);
  if (getpid() != 1) return 1;
  mkdir("/proc", 0755);
  mkdir("/sys", 0755);
  mkdir("/tmp", 0755);
  mount("none", "/proc", "proc", 0, NULL);
  mount("none", "/sys", "sysfs", 0, NULL);
  mount("none", "/tmp", "tmpfs", 0, NULL);

  begin("doctor");
  char *doctor[] = {"/profiler", "doctor", "--json", NULL};
  run(doctor);
  begin("record");
  char *record[] = {"/profiler", "record", "-F", "99", "-o", "/tmp/out.folded", "--", "/init", "work", NULL};
  int code = run(record);
  begin("stacks");
  print_file("/tmp/out.folded");
  begin("end");
  printf("%d\n", code);
  fflush(stdout);
  sync();
  reboot(RB_POWER_OFF);
  return 0;
}
