#include "common/object_store/s3_writer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/object_store/s3_store.h"
#include "common/object_store/s3_xml.h"

namespace uniquanf {
namespace {

constexpr char kWriteIdHeader[] = "x-amz-meta-uniquanf-write";
// Completing an upload of many parts keeps the server busy for minutes.
constexpr absl::Duration kCompleteStall = absl::Minutes(5);
// One stream to S3 brings less than a hundred MB/s.
constexpr size_t kMaxPartsInFlight = 4;

absl::Status NotS3(absl::string_view name, absl::string_view what) {
  return FailedPrecondition("S3_PROTOCOL", absl::StrCat(name, ": the server's answer ", what,
                                                        "; is the endpoint an S3 server?"));
}

// Sends one part; its entity tag.
absl::StatusOr<std::string> UploadPart(S3Client* client, const S3Request& request,
                                       const std::string& name) {
  UQ_ASSIGN_OR_RETURN(const S3Response response, client->Send(request));
  if (!response.ok()) {
    if (response.error_code == "NoSuchUpload") {
      return Unavailable("STORE_UNAVAILABLE",
                         absl::StrCat(name, ": the upload was aborted by somebody else"));
    }
    return client->ErrorOf(request, response);
  }
  const absl::string_view etag = response.http.Header("etag");
  if (etag.empty()) return NotS3(name, "to a part has no ETag");
  return std::string(etag);
}

}  // namespace

uint64_t S3PartBytes(uint64_t bytes_so_far, uint64_t min_part_bytes) {
  return std::max(min_part_bytes, bytes_so_far / 1000);
}

S3Writer::S3Writer(std::shared_ptr<S3Client> client, std::string key, WriteOptions options,
                   std::string write_id, uint64_t min_part_bytes)
    : client_(std::move(client)),
      key_(std::move(key)),
      options_(std::move(options)),
      write_id_(std::move(write_id)),
      min_part_bytes_(min_part_bytes) {}

S3Writer::~S3Writer() { Abort(); }

std::string S3Writer::Name() const {
  return absl::StrCat("s3://", client_->config().bucket, "/", key_);
}

absl::Status S3Writer::AlreadyExists() const {
  return MakeError(absl::StatusCode::kAlreadyExists, "OBJECT_EXISTS",
                   absl::StrCat(Name(), " exists already"));
}

absl::Status S3Writer::Append(absl::string_view data) {
  if (!status_.ok()) return status_;
  if (!options_.expected_sha256.empty()) digest_.Update(data);
  status_ = AppendParts(data);
  if (!status_.ok()) Abort();
  return status_;
}

absl::Status S3Writer::AppendParts(absl::string_view data) {
  // A part goes out when more bytes follow it: what is no longer than one part stays one PUT.
  while (!data.empty()) {
    const uint64_t part_bytes = S3PartBytes(sent_bytes_, min_part_bytes_);
    if (buffer_.size() == part_bytes) {
      UQ_RETURN_IF_ERROR(SendPart(std::move(buffer_)));
      buffer_ = std::string();
    } else {
      const size_t count = std::min<uint64_t>(part_bytes - buffer_.size(), data.size());
      buffer_.append(data.data(), count);
      data.remove_prefix(count);
    }
  }
  return absl::OkStatus();
}

absl::Status S3Writer::StartUpload() {
  if (options_.if_absent) {
    // Not the check that counts, but it may save sending gigabytes.
    UQ_ASSIGN_OR_RETURN(const Presence presence, Look(nullptr));
    if (presence != Presence::kAbsent) return AlreadyExists();
  }
  S3Request request;
  request.method = "POST";
  request.key = key_;
  request.query = {{"uploads", ""}};
  request.headers = {{kWriteIdHeader, write_id_}};
  UQ_ASSIGN_OR_RETURN(const S3Response response, client_->Send(request));
  if (!response.ok()) return client_->ErrorOf(request, response);
  const absl::StatusOr<XmlElement> document = ParseXml(response.http.body);
  if (!document.ok() || document->Text("UploadId").empty()) {
    return NotS3(Name(), "names no multipart upload");
  }
  upload_id_ = std::string(document->Text("UploadId"));
  return absl::OkStatus();
}

absl::Status S3Writer::SendPart(std::string part) {
  if (upload_id_.empty()) UQ_RETURN_IF_ERROR(StartUpload());
  if (in_flight_.size() == kMaxPartsInFlight) UQ_RETURN_IF_ERROR(FinishOldestPart());
  sent_bytes_ += part.size();
  S3Request request;
  request.method = "PUT";
  request.key = key_;
  request.query = {{"partNumber", absl::StrCat(etags_.size() + in_flight_.size() + 1)},
                   {"uploadId", upload_id_}};
  in_flight_.push_back(
      std::async(std::launch::async, [client = client_, request = std::move(request),
                                      part = std::move(part), name = Name()]() mutable {
        request.body = part;
        return UploadPart(client.get(), request, name);
      }));
  return absl::OkStatus();
}

absl::Status S3Writer::FinishOldestPart() {
  absl::StatusOr<std::string> etag = in_flight_.front().get();
  in_flight_.pop_front();
  if (!etag.ok()) return etag.status();
  etags_.push_back(*std::move(etag));
  UQ_CRASH_POINT("s3_writer.after_part");
  return absl::OkStatus();
}

absl::Status S3Writer::FinishParts() {
  while (!in_flight_.empty()) UQ_RETURN_IF_ERROR(FinishOldestPart());
  return absl::OkStatus();
}

absl::Status S3Writer::Commit() {
  if (!status_.ok()) return status_;
  // "Committed" is also a state in which nothing more may happen.
  status_ = FailedPrecondition("WRITER_DONE", absl::StrCat(Name(), " was committed already"));
  if (!options_.expected_sha256.empty()) {
    const std::string actual = digest_.FinishHex();
    if (actual != options_.expected_sha256) {
      Abort();
      return status_ = MakeError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                                 absl::StrCat(Name(), ": the bytes hash to ", actual, ", not to ",
                                              options_.expected_sha256));
    }
  }
  absl::Status result;
  if (upload_id_.empty()) {
    result = PutWhole();
  } else {
    if (!buffer_.empty()) result = SendPart(std::move(buffer_));
    if (result.ok()) result = FinishParts();
    if (result.ok()) result = CompleteUpload();
  }
  Abort();
  if (!result.ok()) status_ = result;
  return result;
}

absl::Status S3Writer::PutWhole() {
  S3Request request;
  request.method = "PUT";
  request.key = key_;
  request.headers = {{kWriteIdHeader, write_id_}};
  if (options_.if_absent) request.headers.emplace_back("if-none-match", "*");
  request.body = buffer_;
  UQ_ASSIGN_OR_RETURN(const S3Response response, client_->Send(request));
  if (response.ok()) return absl::OkStatus();
  if (response.http.status == 412) {
    // An attempt whose answer was lost may have written it. That cannot be told from how many
    // attempts there were: libcurl repeats a request by itself when a kept-alive connection dies.
    UQ_ASSIGN_OR_RETURN(const Presence presence, Look(nullptr));
    return presence == Presence::kOurs ? absl::OkStatus() : AlreadyExists();
  }
  return client_->ErrorOf(request, response);
}

absl::Status S3Writer::CompleteUpload() {
  if (options_.if_absent) {
    // For servers that ignore the condition below this is the check.
    UQ_ASSIGN_OR_RETURN(const Presence presence, Look(nullptr));
    if (presence != Presence::kAbsent) return AlreadyExists();
  }
  std::string body = "<CompleteMultipartUpload>";
  for (size_t i = 0; i < etags_.size(); ++i) {
    absl::StrAppend(&body, "<Part><PartNumber>", i + 1, "</PartNumber><ETag>", XmlEscape(etags_[i]),
                    "</ETag></Part>");
  }
  body += "</CompleteMultipartUpload>";
  S3Request request;
  request.method = "POST";
  request.key = key_;
  request.query = {{"uploadId", upload_id_}};
  if (options_.if_absent) request.headers = {{"if-none-match", "*"}};
  request.body = body;
  request.stall_timeout = kCompleteStall;
  UQ_CRASH_POINT("s3_writer.before_complete");
  UQ_ASSIGN_OR_RETURN(S3Response response, client_->Send(request));
  if (response.http.status == 501 && options_.if_absent) {  // the condition is not implemented
    request.headers.clear();
    UQ_ASSIGN_OR_RETURN(response, client_->Send(request));
  }
  if (response.ok()) {
    const absl::StatusOr<XmlElement> document = ParseXml(response.http.body);
    if (!document.ok() || document->name != "CompleteMultipartUploadResult") {
      return NotS3(Name(), "does not say that the upload was completed");
    }
    return CheckCompleted();
  }
  const bool gone = response.error_code == "NoSuchUpload" || response.http.status == 404;
  const bool exists = response.http.status == 412;
  if (gone || exists) {  // by somebody else, or by an attempt of ours whose answer was lost
    UQ_ASSIGN_OR_RETURN(const Presence presence, Look(nullptr));
    if (presence == Presence::kOurs) return CheckCompleted();
  }
  if (exists) return AlreadyExists();
  if (gone) {
    return Unavailable("STORE_UNAVAILABLE",
                       absl::StrCat(Name(), ": the upload was aborted by somebody else"));
  }
  return client_->ErrorOf(request, response);
}

absl::Status S3Writer::CheckCompleted() {
  upload_id_.clear();  // nothing to abort any more
  uint64_t size_bytes = 0;
  UQ_ASSIGN_OR_RETURN(const Presence presence, Look(&size_bytes));
  // Another writer may have replaced the object since; only our own tells us anything.
  if (presence == Presence::kOurs && size_bytes != sent_bytes_) {
    return MakeError(
        absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
        absl::StrCat(Name(), " has ", size_bytes, " bytes after writing ", sent_bytes_));
  }
  return absl::OkStatus();
}

absl::StatusOr<S3Writer::Presence> S3Writer::Look(uint64_t* size_bytes) {
  S3Request request;
  request.method = "HEAD";
  request.key = key_;
  UQ_ASSIGN_OR_RETURN(const S3Response response, client_->Send(request));
  if (response.http.status == 404) return Presence::kAbsent;
  if (!response.ok()) return client_->ErrorOf(request, response);
  if (size_bytes != nullptr &&
      !absl::SimpleAtoi(response.http.Header("content-length"), size_bytes)) {
    return NotS3(Name(), "has no Content-Length");
  }
  return response.http.Header(kWriteIdHeader) == write_id_ ? Presence::kOurs : Presence::kOther;
}

void S3Writer::Abort() {
  // A part that arrives after the upload was aborted would bring it back at some servers.
  for (auto& part : in_flight_) part.wait();
  in_flight_.clear();
  if (upload_id_.empty()) return;
  S3Request request;
  request.method = "DELETE";
  request.key = key_;
  request.query = {{"uploadId", upload_id_}};
  // AbortStaleS3Uploads finds what this leaves.
  request.max_attempts = 3;
  request.ignore_interrupt = true;
  if (client_->interrupted()) {  // somebody waits for us
    request.max_attempts = 1;
    request.stall_timeout = absl::Seconds(1);
  }
  client_->Send(request).IgnoreError();
  upload_id_.clear();
}

}  // namespace uniquanf
