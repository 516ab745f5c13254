#include "common/object_store/s3_store.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"
#include "common/object_store/object_key.h"
#include "common/object_store/s3_writer.h"
#include "common/object_store/s3_xml.h"

namespace uniquanf {
namespace {

constexpr size_t kMaxS3KeyBytes = 1024;

absl::Status NotS3(absl::string_view name, absl::string_view what) {
  return FailedPrecondition("S3_PROTOCOL", absl::StrCat(name, ": the server's answer ", what,
                                                        "; is the endpoint an S3 server?"));
}

class S3Store : public ObjectStore {
 public:
  S3Store(std::shared_ptr<S3Client> client, IdGenerator* ids, uint64_t min_part_bytes)
      : client_(std::move(client)),
        own_ids_(ids == nullptr ? NewRandomIdGenerator() : nullptr),
        ids_(ids == nullptr ? own_ids_.get() : ids),
        min_part_bytes_(min_part_bytes) {}

  std::string uri() const override { return client_->config().Uri(); }
  absl::StatusOr<ObjectInfo> Stat(absl::string_view key) override;
  absl::Status ReadAt(absl::string_view key, uint64_t offset, uint64_t size_bytes,
                      char* out) override;
  absl::Status ReadVersionAt(absl::string_view key, absl::string_view version, uint64_t offset,
                             uint64_t size_bytes, char* out) override;
  absl::StatusOr<std::string> Read(absl::string_view key, uint64_t max_bytes) override;
  absl::StatusOr<std::unique_ptr<ObjectWriter>> NewWriter(absl::string_view key,
                                                          const WriteOptions& options) override;
  absl::StatusOr<ListResult> List(const ListOptions& options) override;
  absl::Status Delete(absl::string_view key) override;

 private:
  absl::StatusOr<std::string> FullKey(absl::string_view key) const;
  std::string Name(absl::string_view key) const { return absl::StrCat(uri(), "/", key); }
  // "prefix/" or "".
  std::string Base() const;
  absl::StatusOr<XmlElement> ListPage(const ListOptions& options, int max_keys,
                                      const std::string& token);

  const std::shared_ptr<S3Client> client_;
  const std::unique_ptr<IdGenerator> own_ids_;
  IdGenerator* const ids_;
  const uint64_t min_part_bytes_;
};

std::string S3Store::Base() const {
  const std::string& prefix = client_->config().prefix;
  return prefix.empty() ? std::string() : absl::StrCat(prefix, "/");
}

absl::StatusOr<std::string> S3Store::FullKey(absl::string_view key) const {
  UQ_RETURN_IF_ERROR(ValidateObjectKey(key));
  std::string full = absl::StrCat(Base(), key);
  if (full.size() > kMaxS3KeyBytes) {
    return InvalidInput(
        "INVALID_OBJECT_KEY",
        absl::StrCat("object key \"", key.substr(0, 200), "...\" and the prefix of ", uri(),
                     " have more than ", kMaxS3KeyBytes, " bytes together"));
  }
  return full;
}

absl::StatusOr<ObjectInfo> S3Store::Stat(absl::string_view key) {
  S3Request request;
  request.method = "HEAD";
  UQ_ASSIGN_OR_RETURN(request.key, FullKey(key));
  UQ_ASSIGN_OR_RETURN(const S3Response response, client_->Send(request));
  if (!response.ok()) return client_->ErrorOf(request, response);
  ObjectInfo info;
  info.key = std::string(key);
  if (!absl::SimpleAtoi(response.http.Header("content-length"), &info.size_bytes)) {
    return NotS3(Name(key), "has no Content-Length");
  }
  if (!absl::ParseTime("%a, %d %b %Y %H:%M:%S GMT", response.http.Header("last-modified"),
                       &info.modified, nullptr)) {
    return NotS3(Name(key), "has no Last-Modified");
  }
  // A weak tag does not promise the same bytes.
  const absl::string_view etag = response.http.Header("etag");
  if (!absl::StartsWith(etag, "W/")) info.version = std::string(etag);
  return info;
}

absl::Status S3Store::ReadAt(absl::string_view key, uint64_t offset, uint64_t size_bytes,
                             char* out) {
  return ReadVersionAt(key, /*version=*/"", offset, size_bytes, out);
}

absl::Status S3Store::ReadVersionAt(absl::string_view key, absl::string_view version,
                                    uint64_t offset, uint64_t size_bytes, char* out) {
  const bool overflows = size_bytes > std::numeric_limits<uint64_t>::max() - offset;
  if (size_bytes == 0 || overflows) {  // neither can be said in a Range header
    UQ_ASSIGN_OR_RETURN(const ObjectInfo info, Stat(key));
    if (!version.empty() && info.version != version) return ObjectChanged(Name(key));
    if (overflows || offset > info.size_bytes) {
      return ObjectTooShort(Name(key), info.size_bytes, offset, size_bytes);
    }
    return absl::OkStatus();
  }
  S3Request request;
  UQ_ASSIGN_OR_RETURN(request.key, FullKey(key));
  request.sink = out;
  request.range_offset = offset;
  request.range_size_bytes = size_bytes;
  request.if_match = std::string(version);
  UQ_ASSIGN_OR_RETURN(const S3Response response, client_->Send(request));
  // A server that does not know If-Match for reading still says which version it sent.
  if (!version.empty() &&
      (response.http.status == 412 || (response.ok() && response.http.Header("etag") != version))) {
    return ObjectChanged(Name(key));
  }
  if (!response.ok() && response.http.status != 416) return client_->ErrorOf(request, response);
  // The client checks that the answer begins at the offset; how much there is stands after '/'.
  const absl::string_view range = response.http.Header("content-range");
  uint64_t total = 0;
  const size_t slash = range.rfind('/');
  const bool total_known = slash != range.npos && absl::SimpleAtoi(range.substr(slash + 1), &total);
  if (response.http.status == 416 && !total_known) {
    UQ_ASSIGN_OR_RETURN(const ObjectInfo info, Stat(key));
    total = info.size_bytes;
  }
  if (response.http.status == 416 || total < offset + size_bytes) {
    return ObjectTooShort(Name(key), total, offset, size_bytes);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> S3Store::Read(absl::string_view key, uint64_t max_bytes) {
  S3Request request;
  UQ_ASSIGN_OR_RETURN(request.key, FullKey(key));
  // Room for an error document; a longer object than allowed is cut off and found out below.
  constexpr uint64_t kErrorBytes = 64 << 10;
  request.max_body_bytes = std::max(max_bytes, kErrorBytes);
  absl::StatusOr<S3Response> response = client_->Send(request);
  if (!response.ok()) {
    if (ErrorReason(response.status()) != "RESPONSE_TOO_LARGE") return response.status();
    UQ_ASSIGN_OR_RETURN(const ObjectInfo info, Stat(key));
    return ObjectTooLarge(Name(key), info.size_bytes, max_bytes);
  }
  if (!response->ok()) return client_->ErrorOf(request, *response);
  if (response->http.body.size() > max_bytes) {
    return ObjectTooLarge(Name(key), response->http.body.size(), max_bytes);
  }
  return std::move(response->http.body);
}

absl::StatusOr<std::unique_ptr<ObjectWriter>> S3Store::NewWriter(absl::string_view key,
                                                                 const WriteOptions& options) {
  UQ_ASSIGN_OR_RETURN(std::string full, FullKey(key));
  UQ_RETURN_IF_ERROR(ValidateWriteOptions(options));
  return std::make_unique<S3Writer>(client_, std::move(full), options, ids_->NewId("w"),
                                    min_part_bytes_);
}

absl::StatusOr<XmlElement> S3Store::ListPage(const ListOptions& options, int max_keys,
                                             const std::string& token) {
  S3Request request;
  request.query = {{"list-type", "2"},
                   {"prefix", absl::StrCat(Base(), options.prefix)},
                   {"max-keys", absl::StrCat(max_keys)}};
  if (!token.empty()) {
    request.query.emplace_back("continuation-token", token);
  } else if (!options.start_after.empty()) {
    request.query.emplace_back("start-after", absl::StrCat(Base(), options.start_after));
  }
  UQ_ASSIGN_OR_RETURN(const S3Response response, client_->Send(request));
  if (!response.ok()) return client_->ErrorOf(request, response);
  absl::StatusOr<XmlElement> document = ParseXml(response.http.body);
  if (!document.ok() || document->name != "ListBucketResult") return NotS3(uri(), "is no listing");
  return document;
}

absl::StatusOr<ListResult> S3Store::List(const ListOptions& options) {
  if (options.max_results < 1 || options.max_results > 1000) {
    return InvalidInput("INVALID_LIST_OPTIONS",
                        absl::StrCat("max_results is ", options.max_results, "; give 1 to 1000"));
  }
  const std::string base = Base();
  ListResult result;
  std::string token;
  do {
    const int wanted = options.max_results - static_cast<int>(result.objects.size());
    UQ_ASSIGN_OR_RETURN(const XmlElement page, ListPage(options, wanted, token));
    for (const XmlElement& entry : page.children) {
      if (entry.name != "Contents") continue;
      absl::string_view key = entry.Text("Key");
      // Other programs' objects whose keys we could not open are not ours to show.
      if (!absl::ConsumePrefix(&key, base) || !ValidateObjectKey(key).ok()) continue;
      ObjectInfo info;
      info.key = std::string(key);
      if (!absl::SimpleAtoi(entry.Text("Size"), &info.size_bytes) ||
          !absl::ParseTime(absl::RFC3339_full, entry.Text("LastModified"), &info.modified,
                           nullptr)) {
        return NotS3(uri(), "lists an object without size or time");
      }
      result.objects.push_back(std::move(info));
    }
    result.truncated = page.Text("IsTruncated") == "true";
    token = std::string(page.Text("NextContinuationToken"));
    if (result.truncated && token.empty()) return NotS3(uri(), "breaks off without a token");
  } while (result.truncated && result.objects.size() < static_cast<size_t>(options.max_results));
  std::sort(result.objects.begin(), result.objects.end(),
            [](const ObjectInfo& a, const ObjectInfo& b) { return a.key < b.key; });
  return result;
}

absl::Status S3Store::Delete(absl::string_view key) {
  S3Request request;
  request.method = "DELETE";
  UQ_ASSIGN_OR_RETURN(request.key, FullKey(key));
  UQ_ASSIGN_OR_RETURN(const S3Response response, client_->Send(request));
  if (response.ok() || (response.http.status == 404 && response.error_code != "NoSuchBucket")) {
    return absl::OkStatus();
  }
  return client_->ErrorOf(request, response);
}

absl::StatusOr<std::shared_ptr<S3Client>> OpenClient(absl::string_view uri,
                                                     const S3StoreOptions& options) {
  const Environment environment = options.environment ? options.environment : ProcessEnvironment();
  const Clock& clock = options.clock == nullptr ? SystemClock() : *options.clock;
  UQ_ASSIGN_OR_RETURN(S3Config config, ParseS3Config(uri, environment));
  auto transport = std::make_shared<HttpTransport>(config.ca_file);
  auto credentials = NewDefaultCredentials(environment, transport, clock);
  return std::make_shared<S3Client>(std::move(config), std::move(credentials), std::move(transport),
                                    clock, options.client);
}

}  // namespace

absl::StatusOr<std::shared_ptr<ObjectStore>> OpenS3Store(absl::string_view uri) {
  return OpenS3Store(uri, S3StoreOptions());
}

absl::StatusOr<std::shared_ptr<ObjectStore>> OpenS3Store(absl::string_view uri,
                                                         S3StoreOptions options) {
  UQ_ASSIGN_OR_RETURN(std::shared_ptr<S3Client> client, OpenClient(uri, options));
  return std::make_shared<S3Store>(std::move(client), options.ids, options.min_part_bytes);
}

absl::StatusOr<int> AbortStaleS3Uploads(absl::string_view uri, absl::Duration min_age,
                                        S3StoreOptions options) {
  UQ_ASSIGN_OR_RETURN(const std::shared_ptr<S3Client> client, OpenClient(uri, options));
  const Clock& clock = options.clock == nullptr ? SystemClock() : *options.clock;
  const std::string& prefix = client->config().prefix;
  const std::string base = prefix.empty() ? std::string() : absl::StrCat(prefix, "/");
  const absl::Time limit = clock.Now() - min_age;
  int num_aborted = 0;
  std::string key_marker;
  std::string upload_marker;
  for (bool more = true; more;) {
    S3Request request;
    request.query = {{"uploads", ""}, {"prefix", base}};
    if (!key_marker.empty()) {
      request.query.emplace_back("key-marker", key_marker);
      request.query.emplace_back("upload-id-marker", upload_marker);
    }
    UQ_ASSIGN_OR_RETURN(const S3Response response, client->Send(request));
    if (!response.ok()) return client->ErrorOf(request, response);
    const absl::StatusOr<XmlElement> page = ParseXml(response.http.body);
    if (!page.ok() || page->name != "ListMultipartUploadsResult") {
      return NotS3(uri, "is no list of uploads");
    }
    for (const XmlElement& upload : page->children) {
      absl::Time initiated;
      if (upload.name != "Upload" || !absl::StartsWith(upload.Text("Key"), base) ||
          !absl::ParseTime(absl::RFC3339_full, upload.Text("Initiated"), &initiated, nullptr) ||
          initiated >= limit) {
        continue;
      }
      S3Request abort;
      abort.method = "DELETE";
      abort.key = std::string(upload.Text("Key"));
      abort.query = {{"uploadId", std::string(upload.Text("UploadId"))}};
      UQ_ASSIGN_OR_RETURN(const S3Response aborted, client->Send(abort));
      // 404: its writer has finished in the meantime.
      if (!aborted.ok() && aborted.http.status != 404) return client->ErrorOf(abort, aborted);
      ++num_aborted;
    }
    const std::string next_key(page->Text("NextKeyMarker"));
    const std::string next_upload(page->Text("NextUploadIdMarker"));
    more = page->Text("IsTruncated") == "true" &&
           std::make_pair(next_key, next_upload) != std::make_pair(key_marker, upload_marker);
    key_marker = next_key;
    upload_marker = next_upload;
  }
  return num_aborted;
}

}  // namespace uniquanf
