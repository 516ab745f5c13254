// The audit log (SECURITY R27): every line once, whole, on disk; and what happens when the disk is
// full.
#include "server/access/audit_log.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/json_util.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace uniquanf::server {
namespace {

std::vector<nlohmann::json> Lines(const std::string& path) {
  std::ifstream file(path);
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

AuditRecord Record(const std::string& resource) {
  AuditRecord record;
  record.time = absl::FromUnixSeconds(1700000000);
  record.principal = "tenant/a/user/alice";
  record.method = "JobService/CancelJob";
  record.resource = resource;
  record.code = "OK";
  record.allowed = true;
  return record;
}

TEST(AuditLogTest, LinesOfManyThreadsAreThereOnceEachAndWhole) {
  TempDir dir;
  const std::string path = dir.File("audit.log");
  auto log = *AuditLog::Open(path, nullptr);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&log, t] {
      for (int i = 0; i < 500; ++i) log->Append(Record(absl::StrCat("jobs/", t, "-", i)));
    });
  }
  for (std::thread& thread : threads) thread.join();
  log->Flush();
  const auto lines = Lines(path);
  ASSERT_EQ(lines.size(), 2001u);  // and the server's start
  std::set<std::string> resources;
  for (const auto& line : lines) resources.insert(line.value("resource", "start"));
  EXPECT_EQ(resources.size(), 2001u);
  EXPECT_EQ(lines[0]["method"], "Start");
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST(AuditLogTest, WhatCallersSayStaysInItsLine) {
  AuditRecord record =
      Record("jobs/a\n{\"decision\":\"allowed\"}\x1b[2J\xff" + std::string(5000, 'x'));
  record.allowed = false;
  const std::string line = AuditLine(record);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_LT(line.size(), 3000u);
  const nlohmann::json parsed = nlohmann::json::parse(line);
  EXPECT_EQ(parsed["decision"], "denied");
  EXPECT_EQ(parsed["principal"], "tenant/a/user/alice");
}

TEST(AuditLogTest, AFullDiskShowsAndNothingIsLostMeanwhile) {
  std::atomic<int> warnings{0};
  auto log = *AuditLog::Open("/dev/full", [&](NoteLevel, const std::string&) { ++warnings; });
  EXPECT_THAT(log->health(), FailsWith(absl::StatusCode::kUnavailable, "AUDIT_UNAVAILABLE"));
  EXPECT_GT(log->num_failures(), 0);
  log->Append(Record("jobs/a"));
  log->Flush();
  EXPECT_EQ(warnings, 1);
}

TEST(AuditLogTest, AFileThatWasRenamedIsOpenedAnew) {
  TempDir dir;
  const std::string path = dir.File("audit.log"), old = dir.File("audit.log.1");
  auto log = *AuditLog::Open(path, nullptr);
  log->Append(Record("jobs/before"));
  log->Flush();
  std::filesystem::rename(path, old);
  log->Reopen();
  while (!std::filesystem::exists(path)) absl::SleepFor(absl::Milliseconds(1));
  log->Append(Record("jobs/after"));
  log->Flush();
  EXPECT_EQ(Lines(old).back()["resource"], "jobs/before");
  EXPECT_EQ(Lines(path).back()["resource"], "jobs/after");
}

TEST(AuditLogTest, AFileThatCannotBeOpenedIsNamed) {
  EXPECT_THAT(AuditLog::Open("/no/such/dir/audit.log", nullptr),
              FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_FLAG",
                        ::testing::HasSubstr("/no/such/dir/audit.log")));
}

}  // namespace
}  // namespace uniquanf::server
