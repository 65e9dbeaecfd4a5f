-- An Orthanc archive that has each new radiograph read, and stores the report in the same study.
--
--   Orthanc examples/orthanc.json
--
-- The service must run (`make serve`). CXR_URL, CXR_MODEL and CXRSERVE_KEY in the environment of Orthanc change the defaults.
-- Research use only: the report is unverified. If Orthanc or the service stops, what was on its way is not sent again.
-- The gateway (`python -m gateway --help`) has a durable queue for that.

local url = os.getenv("CXR_URL") or "http://127.0.0.1:8000"
local model = os.getenv("CXR_MODEL") or "pneumothorax"
local key = os.getenv("CXRSERVE_KEY")

local radiographs = { CR = true, DX = true, RG = true }

local function headers()
  local sent = { ["content-type"] = "application/dicom", ["accept"] = "application/dicom" }
  if key then
    sent["authorization"] = "Bearer " .. key
  end
  return sent
end

-- A report is no radiograph, so the report that is stored here does not come back as a new request.
function OnStoredInstance(instance, tags, metadata)
  if not radiographs[tags["Modality"]] then
    return
  end
  local file = RestApiGet("/instances/" .. instance .. "/file")
  local report = HttpPost(url .. "/predict/dicom?result=sr&model=" .. model, file, headers())
  if report == nil or string.sub(report, 129, 132) ~= "DICM" then
    print("no report for instance " .. instance)  -- Orthanc's own id, nothing of the patient
    return
  end
  RestApiPost("/instances", report)
end
